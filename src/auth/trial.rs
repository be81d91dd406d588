//! A trial of several lives of tokens (`auth.token_ttl` with weights): who gets which, and what becomes
//! of their tokens.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::config::{TokenTtl, TtlVariant};
use crate::metrics::Counters;

/// Makes this choice another than one that somebody else bases on the same hash of the same ids.
const SALT: &[u8] = b"fanfare auth.token_ttl\0";

/// One life for all, or a trial.
pub struct Trial {
    ttl: Duration,
    /// Empty: there is no trial.
    variants: Vec<(TtlVariant, Arc<str>)>,
    counters: Option<Arc<Counters>>,
}

/// What happens to a token that is counted by variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was made.
    Issued,
    /// Its user came with a newer one.
    Refresh,
    /// It ended while a socket was open.
    Expiry,
    /// It was shown, with a good signature, and refused.
    AuthFailure,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Refresh => "refreshes",
            Self::Expiry => "expiries",
            Self::AuthFailure => "auth_failures",
        }
    }
}

impl Trial {
    pub(super) fn new(ttl: &TokenTtl) -> Self {
        let variants = match ttl {
            TokenTtl::One(_) => Vec::new(),
            TokenTtl::Variants(variants) => variants
                .iter()
                .map(|variant| (variant.clone(), variant.name.as_str().into()))
                .collect(),
        };
        Self {
            ttl: ttl.longest(),
            variants,
            counters: None,
        }
    }

    pub(super) fn count_in(&mut self, counters: Arc<Counters>) {
        self.counters = Some(counters);
    }

    /// The life of a user's tokens, and the name of the variant: the same on every node and after every
    /// start, as long as the variants are the same.
    pub fn life_for(&self, user_id: &str) -> (Duration, Option<&str>) {
        let total: u64 = self
            .variants
            .iter()
            .map(|(one, _)| u64::from(one.weight))
            .sum();
        if total == 0 {
            return (self.ttl, None);
        }
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(SALT);
        context.update(user_id.as_bytes());
        let digest = context.finish();
        let number = digest.as_ref().iter().take(8);
        let number = number.fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let mut at = number % total;
        for (variant, _) in &self.variants {
            let weight = u64::from(variant.weight);
            if at < weight {
                return (variant.ttl, Some(&variant.name));
            }
            at -= weight;
        }
        (self.ttl, None)
    }

    /// The variant of this name. A name that is not configured says nothing: others sign tokens too.
    pub(super) fn known(&self, name: &str) -> Option<Arc<str>> {
        let mut variants = self.variants.iter();
        let found = variants.find(|(variant, _)| variant.name == name);
        found.map(|(_, name)| name.clone())
    }

    /// Counts what happened to a token of this variant.
    pub fn note(&self, variant: Option<&str>, event: Event) {
        if let (Some(variant), Some(counters)) = (variant, &self.counters) {
            let name = format!("{variant} {}", event.name());
            counters.token_variants.increment(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(parts: &[(&str, u64, u32)]) -> Trial {
        let variants = parts.iter().map(|(name, seconds, weight)| TtlVariant {
            name: (*name).to_owned(),
            ttl: Duration::from_secs(*seconds),
            weight: *weight,
        });
        Trial::new(&TokenTtl::Variants(variants.collect()))
    }

    #[test]
    fn everybody_falls_into_one_part_for_good_and_the_parts_are_as_large_as_asked_for() {
        let trial = trial(&[("30m", 1_800, 9), ("5m", 300, 1)]);
        let names = |n: u32| trial.life_for(&format!("user-{n}")).1;
        let short = (0..20_000).filter(|n| names(*n) == Some("5m")).count();
        assert!((1_800..2_200).contains(&short), "{short}");
        // Written down: another version must not move users from one part to another.
        let first: Vec<_> = (0..12).filter(|n| names(*n) == Some("5m")).collect();
        assert_eq!(first, [4, 8]);
    }

    #[test]
    fn names_that_are_not_configured_are_not_known() {
        let trial = trial(&[("30m", 1_800, 1), ("5m", 300, 1)]);
        assert_eq!(trial.known("5m").as_deref(), Some("5m"));
        assert_eq!(trial.known("7m"), None);
        let none = Trial::new(&TokenTtl::One(Duration::from_secs(60)));
        assert_eq!(none.known("5m"), None);
        assert_eq!(none.life_for("u1"), (Duration::from_secs(60), None));
    }
}
