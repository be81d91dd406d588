// Debian's Chromium, and a page in it that fails its test for anything that went wrong unseen.
//
// playwright-core stays at 1.61 while Debian 12 has Node 18: 1.62 wants 20.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { target } from './server.mjs';

/** Starts the browser. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.FANFARE_TEST_CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/**
 * Opens a page of its own and hands it to `walk`, with the list of mistakes so far. Afterwards it
 * fails for every console error, uncaught exception and request to another host, but for the
 * console errors that match one of `expected`; of these, each has to have happened.
 */
export async function withPage(browser, server, { expected = [], ...options }, walk) {
  const context = await browser.newContext({ locale: 'en-GB', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(5_000);
  const mistakes = [];
  const met = new Set();
  page.on('console', (message) => {
    if (message.type() !== 'error') return;
    const text = `${message.text()} (${message.location().url})`;
    const pattern = expected.find((one) => one.test(text));
    if (pattern) met.add(pattern);
    else mistakes.push(`console: ${text}`);
  });
  page.on('pageerror', (error) => mistakes.push(`uncaught: ${error.stack}`));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.host !== new URL(server.url).host) mistakes.push(`foreign request: ${url}`);
  });
  try {
    await walk(page);
    assert.deepEqual(mistakes, []);
    assert.deepEqual(expected.filter((one) => !met.has(one)), [], 'expected console errors');
  } catch (error) {
    await screenshot(page, 'failed').catch(() => {});
    error.message += `\nmistakes: ${mistakes.join('\n')}\n--- the server said:\n${server.output()}---`;
    throw error;
  } finally {
    await context.close();
  }
}

/** Fails for what axe-core finds that keeps somebody from using the page as it is now: contrasts, names, roles. */
export async function accessible(page) {
  await page.evaluate(await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'));
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, ...nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`)]), []);
}

/** Keeps a picture of the whole page in `target/screenshots/NAME.png`. */
export async function screenshot(page, name) {
  const folder = path.join(target, 'screenshots');
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
}
