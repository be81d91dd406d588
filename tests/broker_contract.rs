//! One suite that every implementation of `Broker` and `Store` passes. An implementation joins by a
//! [`Backend`] and one line of `contract!` at the foot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "broker_contract/backend.rs"]
mod backend;
#[path = "broker_contract/budgets.rs"]
mod budgets;
#[path = "broker_contract/embedded.rs"]
mod embedded;
#[path = "broker_contract/embedded_bounds.rs"]
mod embedded_bounds;
#[path = "broker_contract/embedded_relaxed.rs"]
mod embedded_relaxed;
#[path = "broker_contract/embedded_space.rs"]
mod embedded_space;
#[path = "broker_contract/events.rs"]
mod events;
#[path = "broker_contract/history.rs"]
mod history;
#[path = "broker_contract/idempotency.rs"]
mod idempotency;
#[path = "broker_contract/keys.rs"]
mod keys;
#[path = "broker_contract/notifications.rs"]
mod notifications;
#[path = "broker_contract/paging.rs"]
mod paging;
#[path = "broker_contract/presence.rs"]
mod presence;
#[path = "broker_contract/redis.rs"]
mod redis;
#[path = "support/redis/mod.rs"]
mod redis_support;
#[path = "broker_contract/relaxed.rs"]
mod relaxed;
#[path = "broker_contract/revocations.rs"]
mod revocations;
#[path = "broker_contract/users.rs"]
mod users;

/// Runs every test of the suite against a backend.
macro_rules! contract {
    ($name:ident, $backend:expr, { $($file:ident: $($test:ident)*;)* }) => {
        mod $name {
            $($(
                #[tokio::test]
                async fn $test() {
                    crate::$file::$test(&$backend).await;
                }
            )*)*
        }
    };
}

/// The list of the suite; a new backend is a new line below it.
macro_rules! every_contract {
    ($name:ident, $backend:expr) => {
        contract!($name, $backend, {
            events:
                events_arrive_once_in_one_order
                an_event_without_history_has_no_position
                the_last_call_counts
                channels_do_not_mix
                a_notice_reaches_the_node_that_tells_it
                after_closing_everything_is_closed;
            history:
                offsets_are_dense_and_survive
                a_position_is_shown_before_the_first_event
                recovery_is_whole_or_refused
                a_foreign_or_future_position_is_another_epoch
                too_many_events_are_too_far
                old_events_expire
                retention_may_change
                history_is_paged;
            relaxed:
                relaxed_events_survive_closing
                relaxed_and_committed_events_have_one_order
                a_publisher_keeps_its_order_without_waiting
                a_key_of_a_relaxed_publication_is_never_forgotten
                the_limit_of_a_relaxed_channel_holds;
            idempotency:
                a_repeated_publication_gives_the_first_answer
                at_once_only_one_is_published
                a_key_without_history_works_too
                a_repeated_notification_gives_the_first_one
                keys_of_publications_and_notifications_are_apart;
            keys:
                a_key_is_set_read_and_deleted
                keys_expire
                a_revision_never_comes_back
                compare_and_set_has_one_winner
                awkward_names_stay_apart;
            presence:
                a_user_is_in_a_channel_once
                who_is_there_is_bounded_and_counted
                presence_ends_with_the_node
                a_crowd_leaves_nobody_behind;
            users:
                a_wallet_has_one_user
                a_wallet_moves_to_its_new_owner
                a_change_leaves_the_rest;
            revocations:
                a_revocation_comes_back
                revoking_again_only_adds
                revocations_come_in_pages
                revocations_end;
            budgets:
                a_budget_is_spent_and_comes_back
                several_buckets_are_one_step
                of_many_at_once_as_many_get_one_as_there_are;
            notifications:
                a_notification_comes_back_whole
                unread_ones_are_counted
                marking_and_deleting_stay_with_the_owner
                the_cap_takes_the_oldest_read_first
                clearing_takes_the_read_ones
                ids_and_order_increase;
            paging:
                pages_are_newest_first_and_end
                a_cursor_is_right_while_new_ones_arrive
                a_strange_cursor_is_no_error;
        });
    };
}

every_contract!(on_embedded, crate::embedded::Embedded::new());
every_contract!(on_redis, crate::redis::Redis::single());
every_contract!(on_redis_cluster, crate::redis::Redis::cluster());
every_contract!(behind_sentinels, crate::redis::Redis::sentinels());
