// Finding a Solana wallet in the page: by the wallet standard, else an injected provider. A
// file of its own (fanfare-wallet.js), loaded by the first sign-in that names no signer.

/** An address, and a way to sign with its key. */
export interface Signer {
  address: string;
  /** The signature's 64 bytes, or them as base58 or base64. */
  signMessage(message: Uint8Array): Promise<Uint8Array | string>;
}

const CONNECT = 'standard:connect';
const SIGN = 'solana:signMessage';

/** The page's wallet, connected; the person may have to allow that. */
export async function findWallet(): Promise<Signer> {
  const wallets: any[] = [];
  const register = (...more: any[]) => wallets.push(...more);
  // Those that are there answer at once, by calling back.
  const listen = (event: any) => event.detail({ register });
  addEventListener('wallet-standard:register-wallet', listen);
  dispatchEvent(new CustomEvent('wallet-standard:app-ready', { detail: { register } }));
  removeEventListener('wallet-standard:register-wallet', listen);
  for (const { features } of wallets) {
    if (!features?.[CONNECT] || !features[SIGN]) continue;
    const { accounts } = await features[CONNECT].connect();
    const account = accounts[0];
    if (!account) continue;
    return {
      address: account.address,
      signMessage: async (message) => (await features[SIGN].signMessage({ account, message }))[0].signature,
    };
  }
  const page = globalThis as any;
  const injected = page.phantom?.solana ?? page.solana;
  if (!injected?.signMessage) throw new Error('No wallet was found in this browser');
  const answer = await injected.connect();
  const key = answer?.publicKey ?? injected.publicKey;
  return {
    address: key.toBase58?.() ?? String(key),
    signMessage: async (message) => {
      const signed = await injected.signMessage(message, 'utf8');
      return signed.signature ?? signed;
    },
  };
}
