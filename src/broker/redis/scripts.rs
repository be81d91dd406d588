//! What Redis does in one step, in its own language.
//!
//! Every script gets the run id of the server as its first argument. All its keys are in one slot; those
//! of presence compose the names of further ones there.

/// One of [`SCRIPTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Publish,
    Pass,
    Read,
    Enter,
    Leave,
    Present,
    NoteAdd,
    NotePage,
    NoteMark,
    UserPut,
    Swap,
    Revoke,
    Spend,
}

/// Names, as the metrics have them, and texts, in the order of [`Script`].
pub(super) const SCRIPTS: [(&str, &str); 13] = [
    ("publish", include_str!("scripts/publish.lua")),
    ("pass", include_str!("scripts/pass.lua")),
    ("read", include_str!("scripts/read.lua")),
    ("enter", include_str!("scripts/enter.lua")),
    ("leave", include_str!("scripts/leave.lua")),
    ("present", include_str!("scripts/present.lua")),
    ("note_add", include_str!("scripts/note_add.lua")),
    ("note_page", include_str!("scripts/note_page.lua")),
    ("note_mark", include_str!("scripts/note_mark.lua")),
    ("user_put", include_str!("scripts/user_put.lua")),
    ("swap", include_str!("scripts/swap.lua")),
    ("revoke", include_str!("scripts/revoke.lua")),
    ("spend", include_str!("scripts/spend.lua")),
];

impl Script {
    /// What the metrics call it.
    pub(super) const fn name(self) -> &'static str {
        SCRIPTS[self as usize].0
    }
}

const _: () = assert!(Script::Spend as usize + 1 == SCRIPTS.len());
