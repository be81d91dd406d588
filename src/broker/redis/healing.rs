//! Reading what was missed of channels that are followed, and passing it on before what comes next.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;

use super::followed::Followed;
use super::history::{Question, read};
use super::line::Healed;
use super::server::Server;
use super::{Redis, lock, wire};
use crate::broker::{Delivery, Error};
use crate::event_log::without_token;
use crate::protocol::{ChannelKey, Position};
use crate::stopwatch;

/// More that was missed is not read for all, but told as a gap: who missed it reads for itself.
const MISSED_MAX: u64 = 4_096;

/// A channel, and since when it is asked about; `None`: only where it stands.
type Asked = (ChannelKey, Option<Position>);

impl Redis {
    /// Finds out where the channels stand that are heard now, and passes on what was missed.
    pub(super) async fn settle(&self, batch: &[ChannelKey]) {
        let mut questions: HashMap<u64, (Arc<Server>, Vec<Asked>)> = HashMap::new();
        {
            let mut followed = lock(&self.followed);
            let Followed { channels, due, .. } = &mut *followed;
            for channel in batch {
                let Some(entry) = channels.get_mut(channel) else {
                    continue;
                };
                if !entry.is_heard {
                    continue;
                }
                if !entry.line.keeps() {
                    let healed = entry.line.resume();
                    self.deliver_healed(channel, healed);
                    entry.answer(Ok(()));
                    due.remove(channel);
                    continue;
                }
                let server = self.link.server(self.line_slot(channel));
                let since = match (entry.line.is_healing(), entry.line.last()) {
                    (true, Some(last)) => Some(last.clone()),
                    _ => None,
                };
                match server {
                    Ok(server) => {
                        let asked = questions.entry(server.id);
                        let (_, asked) = asked.or_insert_with(|| (server, Vec::new()));
                        asked.push((channel.clone(), since));
                    }
                    Err(error) => entry.answer(Err(error)),
                }
            }
        }
        for (server, asked) in questions.into_values() {
            let cmds = asked.iter().map(|(channel, since)| {
                let question = missed_since(since.as_ref());
                self.question(channel, &question).cmd(&server)
            });
            let answers = server.ask_all(cmds.collect()).await;
            if let Err(error) = &answers {
                self.link.judge(&server, error);
            }
            let mut answers = answers.unwrap_or_default().into_iter();
            for (channel, since) in asked {
                self.settled(&server, &channel, since, answers.next()).await;
            }
        }
    }

    async fn settled(
        &self,
        server: &Server,
        channel: &ChannelKey,
        since: Option<Position>,
        answer: Option<Value>,
    ) {
        let answer = match answer.map(Value::extract_error) {
            Some(Ok(answer)) => read(answer),
            // What has moved or is not loaded is asked for by the longer way.
            Some(Err(_)) => {
                let question = missed_since(since.as_ref());
                self.read(channel, question).await
            }
            None => Err(Error::Unavailable),
        };
        let mut followed = lock(&self.followed);
        let Followed { channels, due, .. } = &mut *followed;
        let Some(entry) = channels.get_mut(channel) else {
            return;
        };
        match answer {
            Ok(answer) => {
                let again = match since {
                    Some(since) => {
                        let healed = entry.line.heal(answer.since(&since));
                        let again = healed.again;
                        self.deliver_healed(channel, healed);
                        again
                    }
                    None => {
                        entry.line.begin(answer.position());
                        // Interrupted since it was asked: now there is something to ask from.
                        entry.line.is_healing()
                    }
                };
                entry.answer(Ok(()));
                if again {
                    self.ear.wake();
                } else {
                    due.remove(channel);
                }
            }
            Err(error) => {
                let channel = without_token(channel.as_str());
                tracing::debug!(%error, %channel, server = %server.address, "a channel could not be read");
                entry.answer(Err(error));
            }
        }
    }

    pub(super) fn deliver(&self, channel: &ChannelKey, message: wire::Message) {
        if let Some(sink) = self.sink() {
            sink.deliver(Delivery {
                channel: channel.clone(),
                event: message.event,
                position: message.position,
                trace: message.trace,
                since_ns: stopwatch::nanos(),
            });
        }
    }

    fn deliver_healed(&self, channel: &ChannelKey, healed: Healed) {
        if healed.is_gap {
            self.figures.gaps.increment();
            if let Some(sink) = self.sink() {
                sink.gap(Some(channel));
            }
        }
        for message in healed.pass {
            self.deliver(channel, message);
        }
    }
}

fn missed_since(since: Option<&Position>) -> Question<'_> {
    since.map_or(Question::Position, |since| {
        Question::Since(since, MISSED_MAX)
    })
}
