//! One thing to be done at the server of its keys: a command or a script, however often it is sent.

use std::time::Duration;

use redis::Cmd;

use super::scripts::Script;
use super::server::Server;
use super::slot::slot;

/// What is done with one key or with keys of one slot.
pub(super) struct Call {
    pub(super) script: Option<Script>,
    /// Of a command: its name and what stands before the key.
    name: &'static str,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    /// Arguments that are others, by their index, where the server is not in charge of the slot yet.
    while_moving: Vec<(usize, Vec<u8>)>,
}

impl Call {
    pub(super) fn script(script: Script, keys: Vec<String>) -> Self {
        Self {
            script: Some(script),
            name: script.name(),
            keys,
            arguments: Vec::new(),
            while_moving: Vec::new(),
        }
    }

    /// `NAME KEY ARGUMENTS..`
    pub(super) fn command(name: &'static str, key: String) -> Self {
        Self {
            script: None,
            name,
            keys: vec![key],
            arguments: Vec::new(),
            while_moving: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// An argument that is another one for a server that takes the call while the slot moves to it.
    pub(super) fn arg_or_moving(
        mut self,
        argument: impl Into<Vec<u8>>,
        while_moving: impl Into<Vec<u8>>,
    ) -> Self {
        let index = self.arguments.len();
        self.while_moving.push((index, while_moving.into()));
        self.arg(argument)
    }

    pub(super) fn number(self, argument: u64) -> Self {
        self.arg(argument.to_string())
    }

    pub(super) fn slot(&self) -> u16 {
        slot(self.keys.first().map_or(&[], |key| key.as_bytes()))
    }

    /// What it is called in the metrics.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What it weighs while it is under way.
    pub(super) fn bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(String::len).sum();
        keys + self.arguments.iter().map(Vec::len).sum::<usize>() + 100
    }

    /// As `server` understands it.
    pub(super) fn cmd(&self, server: &Server) -> Cmd {
        self.with(server, &self.arguments)
    }

    /// The same for a server that the slot is moving to.
    pub(super) fn cmd_while_moving(&self, server: &Server) -> Cmd {
        let mut arguments = self.arguments.clone();
        for (index, argument) in &self.while_moving {
            arguments[*index].clone_from(argument);
        }
        self.with(server, &arguments)
    }

    fn with(&self, server: &Server, arguments: &[Vec<u8>]) -> Cmd {
        match self.script {
            Some(script) => server.script(script, &self.keys, arguments),
            None => {
                let mut cmd = redis::cmd(self.name);
                cmd.arg(&self.keys).arg(arguments);
                cmd
            }
        }
    }
}

/// What a write waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// How many replicas must have it.
    pub(super) replicas: u32,
    /// How long they may take.
    pub(super) timeout: Duration,
}
