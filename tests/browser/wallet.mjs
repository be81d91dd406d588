// A wallet as browser extensions put it into a page, with a key of its own.

/**
 * Puts it there; its address. `window.asked` counts the signatures it was asked for; it gives none while
 * `window.declines`.
 */
export const injectWallet = (page) =>
  page.evaluate(async () => {
    const keys = await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']);
    const raw = new Uint8Array(await crypto.subtle.exportKey('raw', keys.publicKey));
    const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
    let text = '';
    for (let n = raw.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n); n > 0n; n /= 58n) text = alphabet[Number(n % 58n)] + text;
    for (let i = 0; raw[i] === 0; i++) text = `1${text}`;
    window.asked = 0;
    window.solana = {
      connect: async () => ({ publicKey: { toBase58: () => text } }),
      signMessage: async (message) => {
        window.asked++;
        if (window.declines) throw new Error('User rejected the request.');
        return { signature: new Uint8Array(await crypto.subtle.sign('Ed25519', keys.privateKey, message)) };
      },
    };
    return text;
  });
