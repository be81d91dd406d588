// How a pure core (link.ts, renewal.ts) is run: what it wants done is done, in order, and it is woken
// when it asked for that.

export interface Core<E extends Kinds> {
  /** To be carried out in this order, each taken out before. */
  readonly effects: Effect<E>[];
  /** When `tick` is to be called. */
  readonly deadline: number;
  tick(now: number): void;
}

/** Timers take 31 bits. */
const TIMER_MAX = 2_000_000_000;

/** What effects there are, and what comes with each. */
type Kinds = { [kind: string]: unknown[] };

/** An effect: its kind, and what comes with it. */
export type Effect<E extends Kinds> = { [K in keyof E]: [kind: K, ...details: E[K]] }[keyof E];

/** Who carries them out. */
export type Hands<E extends Kinds> = { [K in keyof E]: (...details: E[K]) => void };

/** Hands in an input, with the time. */
export function drive<E extends Kinds>(core: Core<E>, hands: Hands<E>): (input: (now: number) => void) => void {
  let isRunning = false;
  let timer: any;
  return function run(input): void {
    input(Date.now());
    // Called from within an effect: the loop below goes on with what came.
    if (isRunning) return;
    isRunning = true;
    for (let effect; (effect = core.effects.shift()); ) {
      const [kind, ...details] = effect;
      hands[kind](...(details as any));
    }
    isRunning = false;
    clearTimeout(timer);
    const delay = core.deadline - Date.now();
    // Outside of a page (on a server that renders one) nothing is waited for.
    if (delay < Infinity && globalThis.document) {
      timer = setTimeout(() => run((now) => core.tick(now)), Math.min(delay, TIMER_MAX));
    }
  };
}

/** Those who are told that something has changed. */
export class Listeners<A extends any[]> extends Set<(...args: A) => void> {
  tell(...args: A): void {
    for (const listener of [...this]) {
      try {
        listener(...args);
      } catch (error) {
        // A mistake in one takes nothing from the others.
        setTimeout(() => {
          throw error;
        });
      }
    }
  }

  listen(listener: (...args: A) => void): () => void {
    this.add(listener);
    return () => void this.delete(listener);
  }
}
