//! What it costs to believe a token: verification, and the look whether it was taken back, among a
//! million that were. CPU time of the thread, which other programs do not lengthen much.
//!
//!     cargo bench --bench tokens

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the bench"
)]

use fanfare::auth::revocation::Revocations;
use fanfare::auth::{Authority, TokenSubject};
use fanfare::broker::{Revocation, Revoked};
use fanfare::config::{self, Secret, Sources};
use rustix::time::{ClockId, clock_gettime};

const NOW_MS: u64 = 1_795_406_706_789;
const ROUNDS: u32 = 20_000;
const REVOKED: u32 = 1_000_000;

/// CPU time of this thread, in microseconds.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The median of nine runs, each of [`ROUNDS`].
fn cost(mut one: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..9)
        .map(|_| {
            let start = cpu_us();
            (0..ROUNDS).for_each(|_| one());
            (cpu_us() - start) / f64::from(ROUNDS)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[4]
}

fn main() {
    let auth = config::load(&Sources::default()).unwrap().auth;
    let secret = Secret::new(*b"a secret for measuring, long enough");
    let authority = Authority::new(&secret, &auth);
    let subject = TokenSubject {
        user_id: "u1".into(),
        wallet: Some("9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin".into()),
        nickname: Some("Ann".into()),
        ..TokenSubject::default()
    };
    let token = authority.issue(&subject, NOW_MS).token;
    let revocations = Revocations::default();
    for n in 0..REVOKED {
        revocations.add(&Revocation {
            revoked: Revoked::Token {
                id: format!("token-{n}"),
            },
            keep_until_ms: u64::MAX,
        });
    }
    let identity = authority.verify(&token, NOW_MS).unwrap();
    let verify = cost(|| assert!(authority.verify(&token, NOW_MS).is_ok()));
    let revoked = cost(|| assert!(!revocations.cover(&identity)));
    println!("HS256 verification            {verify:>8.2} us of CPU a token");
    println!("revocation check, {REVOKED} of them {revoked:>4.2} us");
    println!(
        "both                          {:>8.2} us (at most 10)",
        verify + revoked
    );
    assert!(verify + revoked < 10.0, "too slow");
}
