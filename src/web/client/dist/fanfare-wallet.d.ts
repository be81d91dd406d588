/** An address, and a way to sign with its key: one of the two. */
export interface Signer {
    address: string;
    /** The signature's 64 bytes, or them as base58 or base64. */
    signMessage?(message: Uint8Array): Promise<Uint8Array | string>;
    /** `solana:signIn` of the wallet standard, or `signIn` of a wallet adapter; where it is there, it is used. */
    signIn?(input: any): Promise<{
        signedMessage: Uint8Array;
        signature: Uint8Array;
    }>;
}
/** What the server wants to see: `challenge` asks it for something to sign. */
export declare function prove(who: Signer | undefined, challenge: (wallet: string) => Promise<any>): Promise<object>;
/** The page's wallet, connected; the person may have to allow that. */
export declare function findWallet(): Promise<Signer>;
