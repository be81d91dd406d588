/** An address, and a way to sign with its key. */
export interface Signer {
	address: string;
	/** The signature's 64 bytes, or them as base58 or base64. */
	signMessage(message: Uint8Array): Promise<Uint8Array | string>;
}
/** The page's wallet, connected; the person may have to allow that. */
export declare function findWallet(): Promise<Signer>;

export {};
