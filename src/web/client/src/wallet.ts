// Signing in with a wallet of Solana: the application's own signer, or one that is found in the page by
// the wallet standard, else an injected provider. A file of its own (fanfare-wallet.js), loaded by the
// first sign-in that needs a signature.

/** An address, and a way to sign with its key: one of the two. */
export interface Signer {
  address: string;
  /** The signature's 64 bytes, or them as base58 or base64. */
  signMessage?(message: Uint8Array): Promise<Uint8Array | string>;
  /** `solana:signIn` of the wallet standard, or `signIn` of a wallet adapter; where it is there, it is used. */
  signIn?(input: any): Promise<{ signedMessage: Uint8Array; signature: Uint8Array }>;
}

const CONNECT = 'standard:connect';
const SIGN = 'solana:signMessage';
const SIGN_IN = 'solana:signIn';

/** What the server wants to see: `challenge` asks it for something to sign. */
export async function prove(who: Signer | undefined, challenge: (wallet: string) => Promise<any>): Promise<object> {
  const signer = who ?? (await findWallet());
  const wallet = signer.address;
  const { message, input } = await challenge(wallet);
  if (signer.signIn) {
    const { signedMessage, signature } = await signer.signIn(input);
    return { wallet, output: { account: { address: wallet }, signedMessage: base64(signedMessage), signature: base64(signature) } };
  }
  const signature = await signer.signMessage!(new TextEncoder().encode(message));
  return { wallet, message, signature: typeof signature === 'string' ? signature : base64(signature) };
}

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
    if (!features?.[CONNECT] || !(features[SIGN] || features[SIGN_IN])) continue;
    const { accounts } = await features[CONNECT].connect();
    const account = accounts[0];
    if (!account) continue;
    const { address } = account;
    if (features[SIGN_IN]) return { address, signIn: async (input) => (await features[SIGN_IN].signIn(input))[0] };
    return { address, signMessage: async (message) => (await features[SIGN].signMessage({ account, message }))[0].signature };
  }
  const page = globalThis as any;
  const injected = page.phantom?.solana ?? page.solana;
  if (!injected?.signMessage) throw Object.assign(new Error('No wallet was found in this browser'), { code: 'no_wallet' });
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

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
