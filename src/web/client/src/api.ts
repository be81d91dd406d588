// One request to the server's HTTP API.

import { FanfareError } from './types.js';

/** For an answer. */
export const PATIENCE = 10_000;

/** The answer's JSON, or a `FanfareError`; `code` is `offline` if there was no answer. */
export async function request(
  method: string,
  url: string | URL,
  token?: string | null,
  body?: unknown,
): Promise<any> {
  let status;
  let answer: any;
  try {
    const response = await fetch(url, {
      method,
      headers: {
        'Content-Type': 'application/json',
        ...(token && { Authorization: `Bearer ${token}` }),
      },
      body: JSON.stringify(body),
      keepalive: true,
      signal: AbortSignal.timeout(PATIENCE),
    });
    status = response.status;
    answer = await response.json();
    if (response.ok && answer) return answer;
  } catch {
    // No answer, or some proxy's page.
  }
  const code = answer?.code ?? (status ? `status_${status}` : 'offline');
  throw new FanfareError(code, answer?.error, status);
}
