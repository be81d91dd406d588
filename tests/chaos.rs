//! Recovery under load: hundreds of clients, connections cut at random, the server killed and
//! restarted meanwhile, and an account of everything that was published to hold them to.
//!
//! `CHAOS_SECONDS` says how long, 20 unless told; the whole size is 60. `FANFARE_TEST_SEED`
//! repeats the random choices, though not what the machine makes of them.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

#[path = "chaos/account.rs"]
mod account;
#[path = "chaos/publisher.rs"]
mod publisher;
#[path = "chaos/subscriber.rs"]
mod subscriber;
mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use account::{Account, CHANNELS, SHORT_EVENTS};
use publisher::Publisher;
use subscriber::{Stage, Subscriber};
use support::{Dice, Server};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

const CLIENTS: usize = 500;
const PUBLISHERS: usize = 40;
/// Events a second that all publishers together try for.
const RATE: u64 = 1_000;
const KILLS: u64 = 3;
/// For everybody to have everything once nothing is published or cut any more.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn who_is_told_that_nothing_is_missing_has_everything_once_and_in_order() {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let mut dice = Dice::from_environment();
    let server = Server::start(&[
        ("channels.post.history", "100000"),
        ("channels.short.subscribe", "any"),
        ("channels.short.history", &SHORT_EVENTS.to_string()),
        ("channels.brief.subscribe", "any"),
        ("channels.brief.history", "100000"),
        ("channels.brief.history_ttl", "2s"),
        ("server.workers", "2"),
    ]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (stage, seen) = watch::channel(Stage::Storm);
    let account = Rc::new(RefCell::new(Account::default()));
    LocalSet::new().block_on(&runtime, async {
        let mut publishers = JoinSet::new();
        for by in 0..PUBLISHERS {
            let pause = Duration::from_micros(1_000_000 * PUBLISHERS as u64 / RATE);
            let publisher = Publisher::new(by, &server, &account, Dice::seeded(dice.bits()));
            publishers.spawn_local(publisher.run(pause, seen.clone()));
        }
        let mut subscribers = JoinSet::new();
        for n in 0..CLIENTS {
            let mut dice = Dice::seeded(dice.bits());
            // Every channel has somebody; the second one is drawn.
            let first = n % CHANNELS;
            let second = (first + 1 + dice.below(CHANNELS as u64 - 1) as usize) % CHANNELS;
            let subscriber = Subscriber::new(n, [first, second], &server, &account, dice);
            subscribers.spawn_local(subscriber.run(seen.clone()));
        }
        let server = storm(server, seconds, &mut dice).await;
        stage.send(Stage::Calm).unwrap();
        while let Some(ended) = publishers.join_next().await {
            ended.unwrap();
        }
        stage.send(Stage::Settle).unwrap();
        let settled = tokio::time::timeout(SETTLE_PATIENCE, async {
            while let Some(ended) = subscribers.join_next().await {
                ended.unwrap();
            }
        });
        let settled = settled.await;
        println!("{}", account.borrow());
        assert!(
            settled.is_ok(),
            "{} clients still miss something",
            subscribers.len()
        );
        drop(server);
    });
    account.borrow().assert_worth_it(KILLS);
}

/// Kills the server [`KILLS`] times, at random moments of as many equal parts of the time.
async fn storm(mut server: Server, seconds: u64, dice: &mut Dice) -> Server {
    let part_ms = seconds * 1_000 / KILLS;
    for _ in 0..KILLS {
        let before = part_ms / 4 + dice.below(part_ms / 2);
        tokio::time::sleep(Duration::from_millis(before)).await;
        let began = tokio::time::Instant::now();
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            let took = server.restart();
            println!("killed, ready again after {took:?}");
            server
        })
        .await
        .unwrap();
        let rest = Duration::from_millis(part_ms - before).saturating_sub(began.elapsed());
        tokio::time::sleep(rest).await;
    }
    server
}
