//! Three primaries, and a replica of each if asked for.

use super::{RedisServer, until};

/// A cluster of three primaries.
pub struct Cluster {
    /// The primaries, then their replicas in the same order.
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts it without replicas.
    #[track_caller]
    pub fn start() -> Self {
        Self::with_replicas(0)
    }

    /// Starts it with so many replicas for each primary, 0 or 1.
    #[track_caller]
    pub fn with_replicas(replicas: usize) -> Self {
        let settings = [
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", "2000"),
            ("cluster-require-full-coverage", "no"),
        ];
        let nodes: Vec<_> = (0..3 + 3 * replicas)
            .map(|_| RedisServer::start(&settings))
            .collect();
        for (node, slots) in nodes.iter().zip([0..=5460, 5461..=10_922, 10_923..=16_383]) {
            // `ADDSLOTSRANGE` is of Redis 7.
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"].into_iter();
            let words: Vec<&str> = words.chain(slots.iter().map(String::as_str)).collect();
            node.command(&words);
        }
        for (number, node) in nodes.iter().enumerate() {
            // The epochs of a new cluster must differ.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number > 0 {
                let port = nodes[0].port().to_string();
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &port]);
            }
        }
        let cluster = Self { nodes };
        let count = cluster.nodes.len().to_string();
        until("the nodes know each other", || {
            cluster.nodes.iter().all(|node| {
                let info = node.command(&["CLUSTER", "INFO"]);
                info.contains(&format!("cluster_known_nodes:{count}"))
                    && info.contains("cluster_slots_assigned:16384")
            })
        });
        for number in 3..cluster.nodes.len() {
            let id = cluster.nodes[number - 3].command(&["CLUSTER", "MYID"]);
            let id = id.lines().nth(1).unwrap();
            cluster.nodes[number].command(&["CLUSTER", "REPLICATE", id]);
        }
        cluster.agree();
        cluster
    }

    /// Waits until all nodes that run say that all is well.
    #[track_caller]
    pub fn agree(&self) {
        until("the cluster is up and its replicas follow", || {
            self.nodes.iter().enumerate().all(|(number, node)| {
                let is_up = node
                    .command(&["CLUSTER", "INFO"])
                    .contains("cluster_state:ok");
                is_up && (number < 3 || node.info("master_link_status") == "up")
            })
        });
    }

    /// Moves the slot of a key to the next primary, key by key, as a resharding does.
    #[track_caller]
    pub fn move_slot_of(&self, key: &str) {
        let moving = self.begin_to_move_slot_of(key);
        self.end_move(&moving);
    }

    /// The keys have moved then, and the slot has not.
    #[track_caller]
    pub fn begin_to_move_slot_of(&self, key: &str) -> Moving {
        let slot = self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]);
        let slot = slot.trim().trim_start_matches(':').to_owned();
        let from = (slot.parse::<usize>().unwrap() / 5461).min(2);
        let moving = Moving {
            slot,
            from,
            to: (from + 1) % 3,
        };
        let (from, to) = (&self.nodes[from], &self.nodes[moving.to]);
        moving.set(to, &["IMPORTING", &id(from)]);
        moving.set(from, &["MIGRATING", &id(to)]);
        self.move_keys(&moving);
        moving
    }

    /// The slot moves as well.
    #[track_caller]
    pub fn end_move(&self, moving: &Moving) {
        self.move_keys(moving);
        let (from, to) = (&self.nodes[moving.from], &self.nodes[moving.to]);
        let to_id = id(to);
        for node in [to, from].into_iter().chain(&self.nodes[..3]) {
            moving.set(node, &["NODE", &to_id]);
        }
    }

    fn move_keys(&self, moving: &Moving) {
        let from = &self.nodes[moving.from];
        let port = self.nodes[moving.to].port().to_string();
        loop {
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &moving.slot, "1"]);
            // `*1`, `$LENGTH`, the key.
            let Some(key) = keys.lines().nth(2) else {
                break;
            };
            let words = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
            let answer = from.command(&words);
            let is_done = answer.starts_with("+OK") || answer.starts_with("+NOKEY");
            assert!(is_done, "{key}: {answer}");
            // What belongs together is apart for a while.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// All primaries that it began with, as a URL.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes[..3]
            .iter()
            .map(|node| node.address().to_string())
            .collect();
        format!("redis://{}", addresses.join(","))
    }
}

/// A slot on its way.
pub struct Moving {
    slot: String,
    from: usize,
    to: usize,
}

impl Moving {
    #[track_caller]
    fn set(&self, node: &RedisServer, words: &[&str]) {
        let words = [&["CLUSTER", "SETSLOT", &self.slot], words].concat();
        let answer = node.command(&words);
        assert!(answer.starts_with("+OK"), "{words:?}: {answer}");
    }
}

fn id(node: &RedisServer) -> String {
    let id = node.command(&["CLUSTER", "MYID"]);
    id.lines().nth(1).unwrap().to_owned()
}
