//! Permissions: the role that each request needs, and whether a connection's grant covers it.
//!
//! [`Permission::of`] has one row for each kind of request. A new kind does not compile without
//! one.

use std::sync::Arc;

use super::request::Question;
use crate::access::{Gate, Grant, Proof, Role, TOKEN_BYTES_MAX};
use crate::kv::{Command, Key, Query, Selection, Txn};

/// The keys that a request concerns.
#[derive(Clone, Copy, Debug)]
enum Keys<'a> {
    /// None, or only those that the server's own state names.
    None,
    One(&'a Key),
    /// All keys with this prefix.
    Prefix(&'a str),
    /// Those of a transaction, in its conditions and in both branches.
    Txn(&'a Txn),
}

/// The role and the keys that a request needs.
#[derive(Clone, Copy, Debug)]
struct Permission<'a> {
    role: Role,
    keys: Keys<'a>,
}

impl<'a> Permission<'a> {
    /// The permission that a request needs; `None`: none, not even a proof of identity.
    fn of(question: &'a Question) -> Option<Self> {
        let (role, keys) = match question {
            Question::Auth(_) => return None,
            Question::Ping | Question::Status | Question::Members | Question::Unwatch(_) => {
                (Role::Read, Keys::None)
            }
            Question::Read(query, _) | Question::LinearizableRead(query, _) => (Role::Read, keys_of(query)),
            Question::Watch { selection, .. } => return Some(Self::of_watch(selection)),
            Question::Write(command, ..) => Self::of_command(command),
            Question::Transfer(_) | Question::ChangeMembers(_) | Question::Backup(_) => {
                (Role::Admin, Keys::None)
            }
        };
        Some(Self { role, keys })
    }

    fn of_watch(selection: &'a Selection) -> Self {
        let keys = match selection {
            Selection::Key(key) => Keys::One(key),
            Selection::Prefix(prefix) => Keys::Prefix(prefix),
        };
        Self { role: Role::Read, keys }
    }

    fn of_command(command: &'a Command) -> (Role, Keys<'a>) {
        match command {
            Command::Put { key, .. }
            | Command::PutExpiring { key, .. }
            | Command::Delete { key }
            | Command::DeleteRevision { key, .. }
            | Command::Cas { key, .. }
            | Command::CasRevision { key, .. }
            | Command::CasExpiring { key, .. }
            | Command::Touch { key, .. }
            | Command::Persist { key }
            | Command::Incr { key, .. } => (Role::Write, Keys::One(key)),
            Command::DeletePrefix { prefix, .. } => (Role::Write, Keys::Prefix(prefix)),
            Command::Txn(txn) => (Role::Write, Keys::Txn(txn)),
            // No client sends these.
            Command::Tick(_) | Command::RaiseLevel(_) => (Role::Admin, Keys::None),
        }
    }

    /// Checks that the grant covers what the request needs.
    fn check(&self, grant: &Grant) -> Result<(), Denied> {
        if grant.role < self.role {
            return Err(Denied::Role { needed: self.role, has: grant.role });
        }
        let are_covered = match self.keys {
            Keys::None => true,
            Keys::One(key) => grant.covers_key(key.as_str()),
            Keys::Prefix(prefix) => grant.covers_prefix(prefix),
            Keys::Txn(txn) => txn.keys().all(|(key, _)| grant.covers_key(key.as_str())),
        };
        if are_covered { Ok(()) } else { Err(Denied::Keys) }
    }
}

fn keys_of(query: &Query) -> Keys<'_> {
    match query {
        Query::Value(key) | Query::Entry(key) => Keys::One(key),
        Query::Scan(scan) => Keys::Prefix(&scan.prefix),
    }
}

/// The reason why a request is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The client has not proven its identity, or its proof is not valid any more.
    Unauthenticated,
    /// The request needs a higher role.
    Role { needed: Role, has: Role },
    /// The request concerns keys that are not covered.
    Keys,
    /// The request is answered at this address only.
    Elsewhere { admin: Arc<str> },
}

impl Denied {
    pub(super) fn code(&self) -> &'static str {
        if *self == Self::Unauthenticated { "unauthenticated" } else { "forbidden" }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Unauthenticated => {
                "this server needs a token: send {\"op\":\"auth\",\"token\":…} first, or use a certificate"
                    .into()
            }
            Self::Role { needed, has } => {
                format!("the request needs the role \"{needed}\", and the client has \"{has}\"")
            }
            Self::Keys => "the request concerns keys outside of the client's prefixes".into(),
            Self::Elsewhere { admin } => {
                format!("this server answers the request at its address {admin} only")
            }
        }
    }
}

/// The access of one connection.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// `None`: no proof of identity is needed.
    guarded: Option<Guarded>,
    /// The address for requests that need the role admin, if this port does not answer them.
    admin_elsewhere: Option<Arc<str>>,
}

#[derive(Debug)]
struct Guarded {
    gate: Arc<dyn Gate>,
    proof: Option<Proof>,
    grant: Option<Arc<Grant>>,
    /// The gate's generation when the grant was looked up.
    generation: u64,
    /// The generation for which the watches of the connection were checked.
    watches_checked: u64,
}

impl Guarded {
    fn look_up(&mut self) {
        self.generation = self.gate.generation();
        self.grant = self.proof.as_ref().and_then(|proof| self.gate.grant(proof));
    }
}

impl Access {
    /// The access through this gate of a client that has not proven its identity yet.
    pub(super) fn guarded(gate: Arc<dyn Gate>) -> Self {
        let generation = gate.generation();
        Self {
            guarded: Some(Guarded {
                gate,
                proof: None,
                grant: None,
                generation,
                watches_checked: generation,
            }),
            admin_elsewhere: None,
        }
    }

    /// Denies requests that need the role admin: they are answered at this address.
    pub(super) fn deny_admin(&mut self, admin: Arc<str>) {
        self.admin_elsewhere = Some(admin);
    }

    /// Notes the name in the client's certificate, which was verified.
    pub(super) fn certified(&mut self, name: &str) {
        if let Some(guarded) = &mut self.guarded {
            guarded.proof = Some(Proof::Certificate(name.into()));
            guarded.look_up();
        }
    }

    /// Checks a token, which takes the place of every earlier proof. Returns the client's name.
    pub(super) fn authenticate(&mut self, token: &str) -> Result<Box<str>, AuthError> {
        let guarded = self.guarded.as_mut().ok_or(AuthError::NoTokens)?;
        guarded.proof = (token.len() <= TOKEN_BYTES_MAX).then(|| guarded.gate.proof_of(token));
        guarded.look_up();
        match &guarded.grant {
            Some(grant) => Ok(grant.name.clone()),
            None => {
                guarded.proof = None;
                guarded.gate.note_failure();
                Err(AuthError::Invalid)
            }
        }
    }

    /// Checks that the client may send this request.
    #[inline]
    pub(super) fn check(&mut self, question: &Question) -> Result<(), Denied> {
        if let Some(guarded) = &mut self.guarded {
            guarded.check(question)?;
        }
        match &self.admin_elsewhere {
            Some(admin) if Permission::of(question).is_some_and(|it| it.role == Role::Admin) => {
                Err(Denied::Elsewhere { admin: Arc::clone(admin) })
            }
            _ => Ok(()),
        }
    }
}

impl Access {
    /// Returns whether the grant may have changed since the watches were checked, and notes that
    /// they are checked now.
    pub(super) fn must_check_watches(&mut self) -> bool {
        let Some(guarded) = &mut self.guarded else { return false };
        let generation = guarded.gate.generation();
        if generation != guarded.generation {
            guarded.look_up();
        }
        std::mem::replace(&mut guarded.watches_checked, generation) != generation
    }

    /// The reason why the client may not watch these keys any more.
    pub(super) fn denied_watch(&self, selection: &Selection) -> Option<Denied> {
        let guarded = self.guarded.as_ref()?;
        let Some(grant) = guarded.grant.as_deref() else { return Some(Denied::Unauthenticated) };
        Permission::of_watch(selection).check(grant).err()
    }

    /// The name of a client that is limited to prefixes.
    pub(super) fn limited_name(&self) -> Option<&str> {
        let grant = self.guarded.as_ref()?.grant.as_deref()?;
        (!grant.prefixes.is_empty()).then_some(&*grant.name)
    }
}

impl Guarded {
    fn check(&mut self, question: &Question) -> Result<(), Denied> {
        let Some(permission) = Permission::of(question) else { return Ok(()) };
        if self.generation != self.gate.generation() {
            self.look_up();
        }
        let grant = self.grant.as_deref().ok_or(Denied::Unauthenticated)?;
        permission.check(grant)
    }
}

/// The reason why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    /// The server has no tokens.
    NoTokens,
    /// The token is not valid.
    Invalid,
}
