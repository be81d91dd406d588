//! Spans as OTLP has them: `ExportTraceServiceRequest` of opentelemetry-proto 1.x in protobuf's binary
//! form, which every receiver takes. Written by hand: seven small messages that never change their
//! numbers, against the forty crates of a general exporter. Pure.

use super::{Record, Role, Value};

/// What the spans come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`
    pub service: String,
    /// `service.instance.id`
    pub node: String,
}

/// The body of a request to `/v1/traces`.
pub fn request(resource: &Resource, spans: &[Record]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |it| {
            it.attribute(1, "service.name", &Value::Text(resource.service.clone()));
            it.attribute(1, "service.version", &Value::Text(version.to_owned()));
            it.attribute(
                1,
                "service.instance.id",
                &Value::Text(resource.node.clone()),
            );
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.bytes(1, b"fanfare");
                scope.bytes(2, version.as_bytes());
            });
            for span in spans {
                of_scope.message(2, |it| it.span(span));
            }
        });
    });
    request.0
}

/// The fields of a message, one after the other.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn span(&mut self, span: &Record) {
        /// The flags of Trace Context. Whether the parent is of another process has bits of its own,
        /// which are left out: unknown.
        const SAMPLED: u32 = 1;
        /// `STATUS_CODE_ERROR`; a span that is well has no status.
        const ERROR: u64 = 2;
        self.bytes(1, &span.context.trace_id);
        self.bytes(2, &span.context.span_id);
        if let Some(parent) = span.parent {
            self.bytes(4, &parent);
        }
        self.bytes(5, span.name.as_bytes());
        self.number(6, number_of(span.role));
        self.fixed64(7, span.begin_ns);
        self.fixed64(8, span.end_ns);
        for (key, value) in &span.attributes {
            self.attribute(9, key, value);
        }
        if let Some(fault) = &span.fault {
            self.message(15, |status| {
                status.bytes(2, fault.as_bytes());
                status.number(3, ERROR);
            });
        }
        self.tag(16, 5);
        self.0.extend_from_slice(&SAMPLED.to_le_bytes());
    }

    fn attribute(&mut self, field: u64, key: &str, value: &Value) {
        self.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| match value {
                Value::Text(text) => any.bytes(1, text.as_bytes()),
                Value::Flag(flag) => any.number(2, u64::from(*flag)),
                Value::Number(number) => any.number(3, *number),
            });
        });
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.tag(field, 0);
        self.varint(number);
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

fn number_of(role: Role) -> u64 {
    match role {
        Role::Server => 2,
        Role::Producer => 4,
        Role::Consumer => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Context;

    /// What a real receiver makes of whole requests is in `tests/system/monitoring.test.mjs`.
    #[test]
    fn a_span_is_what_protobuf_says() {
        let mut message = Message::default();
        message.span(&Record {
            context: Context {
                trace_id: [0x11; 16],
                span_id: [0x22; 8],
            },
            parent: Some([0x33; 8]),
            role: Role::Consumer,
            name: "d".into(),
            begin_ns: 1,
            end_ns: 0x0102,
            attributes: vec![("n", Value::Number(300)), ("t", Value::Flag(true))],
            fault: Some("x".into()),
        });
        let mut expected = vec![0x0a, 16];
        expected.extend([0x11; 16]);
        expected.extend([0x12, 8]);
        expected.extend([0x22; 8]);
        expected.extend([0x22, 8]);
        expected.extend([0x33; 8]);
        expected.extend([0x2a, 1, b'd', 0x30, 5]);
        expected.extend([0x39, 1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x41, 2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x4a, 8, 0x0a, 1, b'n', 0x12, 3, 0x18, 0xac, 0x02]);
        expected.extend([0x4a, 7, 0x0a, 1, b't', 0x12, 2, 0x10, 1]);
        expected.extend([0x7a, 5, 0x12, 1, b'x', 0x18, 2]);
        expected.extend([0x85, 0x01, 1, 0, 0, 0]);
        assert_eq!(message.0, expected);
    }
}
