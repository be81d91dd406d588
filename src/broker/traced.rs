//! Publishing within a span of its own, where what asks for it is recorded.

use super::{Broker, Error, Publication, Published};
use crate::trace::{Context, Role, Span, Tracer};

/// Publishes; below `parent` if there is one. If the answer is not waited for, the span says so.
///
/// # Errors
/// As [`Broker::publish`].
pub async fn publish(
    broker: &dyn Broker,
    tracer: &Tracer,
    parent: Option<Context>,
    publication: Publication,
) -> Result<Published, Error> {
    let span = parent.map(|parent| tracer.span(parent, Role::Producer));
    publish_as(broker, span, publication).await
}

/// Publishes; `span` is what is recorded of it.
///
/// # Errors
/// As [`Broker::publish`].
pub async fn publish_as(
    broker: &dyn Broker,
    span: Option<Span>,
    mut publication: Publication,
) -> Result<Published, Error> {
    let Some(mut span) = span else {
        return broker.publish(publication).await;
    };
    publication.trace = Some(span.context());
    span.name(format!("publish {}", publication.channel.kind()));
    span.say("messaging.system", "fanfare".into());
    span.say("messaging.operation.type", "send".into());
    span.say(
        "messaging.destination.name",
        publication.channel.as_str().into(),
    );
    let bytes = publication.event.as_bytes().len() as u64;
    span.say("messaging.message.body.size", bytes.into());
    span.fails("no answer in time".to_owned());
    let outcome = broker.publish(publication).await;
    match &outcome {
        Ok(published) => {
            span.succeeds();
            span.say("fanfare.repeated", published.repeated.into());
            if let Some(position) = &published.position {
                span.say("fanfare.offset", position.offset.into());
            }
        }
        Err(error) => span.fails(error.to_string()),
    }
    outcome
}
