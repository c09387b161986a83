//! `member`: lists and changes the members of a cluster of processes.
//!
//! Each action is a separate command. Two enums list the actions: one for the shell, in which each
//! action takes the flags that all client commands share, and [`Member`] for a line of the
//! interactive client, which already has a connection.

use std::str::FromStr;

use clap::{Args, Subcommand};
use coracle_core::raft::is_address;
use thiserror::Error;

use super::{CommandError, Context, Execute};
use crate::address::{Address, AddressError};
use crate::numbers;
use crate::output::{Format, one_line, write_columns};
use crate::reply::{ErrorCode, MemberRow};
use crate::request::Request;

/// List or change the members of a cluster of processes
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Member {
    List(List),
    Add(Add),
    Promote(Promote),
    Remove(Remove),
}

/// List the members: their ids, roles and addresses
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle member list
  coracle member list -o json | jq '.members[] | select(.role == \"learner\")'

One row per member: its id, its role (a voter; a learner, which receives the log and does not vote; or \
outgoing, a voter that a change in progress removes), the address where its peers reach it, and its \
incarnation, which identifies the node's files. `-` as an incarnation: no node has joined under that id yet.")]
pub(crate) struct List {}

/// Add a new node, as a learner at first
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle member add 4=10.0.0.4:4001
  coracle node --id 4 --join 10.0.0.1:4001   then, on the new machine
  coracle member promote 4                   once it has caught up

ADDR is where the other nodes reach the new one. Choose an id that no node had before: the first node that joins \
under it, with an empty data folder, becomes the member. If ID is a member with another address, voter or \
learner, it is moved to ADDR. Two members never share an address.")]
pub(crate) struct Add {
    /// The new node's id, and the address of its peer port
    #[arg(value_name = "ID=ADDR")]
    member: IdAddress,
}

/// Make a learner a voter
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle member promote 4
  coracle status                          LAG shows how far it is behind

The learner must answer and have caught up with the log. The command waits up to two seconds for one that has \
nearly caught up; any other is rejected without effect.")]
pub(crate) struct Promote {
    /// The learner's id
    #[arg(value_name = "ID", value_parser = numbers::id)]
    node: u64,
}

/// Remove a member
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle member remove 2
  coracle member list

A removed node is notified and ends with exit code 6; it cannot join again with its files. The last voter \
cannot be removed. A removal after which a majority of the remaining voters would not answer is rejected; \
--force skips that check, for voters that are about to start.")]
pub(crate) struct Remove {
    /// The member's id
    #[arg(value_name = "ID", value_parser = numbers::id)]
    node: u64,
    /// Remove it even if a majority of the remaining voters does not answer
    #[arg(long)]
    force: bool,
}

/// An `ID=ADDR` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IdAddress {
    id: u64,
    address: String,
}

/// Why a text is not an `ID=ADDR` argument.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
enum IdAddressError {
    #[error("expected ID=HOST:PORT, such as 4=10.0.0.4:4001")]
    Shape,
    #[error("the id must be a whole number, as in 4=10.0.0.4:4001")]
    Id,
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error("the address is too long or contains invalid characters")]
    NoAddress,
}

impl FromStr for IdAddress {
    type Err = IdAddressError;

    fn from_str(text: &str) -> Result<Self, IdAddressError> {
        let (id, address) = text.split_once('=').ok_or(IdAddressError::Shape)?;
        let id = id.parse().map_err(|_| IdAddressError::Id)?;
        let address = address.parse::<Address>()?.to_string();
        if is_address(&address) { Ok(Self { id, address }) } else { Err(IdAddressError::NoAddress) }
    }
}

impl Execute for Member {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        match self {
            Self::List(list) => list.execute(context),
            Self::Add(add) => add.execute(context),
            Self::Promote(promote) => promote.execute(context),
            Self::Remove(remove) => remove.execute(context),
        }
    }
}

impl Execute for List {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let reply = context.ask(Request::Members)?;
        match context.format {
            Format::Json | Format::Jsonl => context.print_reply(&reply),
            Format::Text => {
                let members = reply.members.ok_or(CommandError::ReplyIncomplete)?;
                Ok(write_columns(context.out, &table(&members))?)
            }
        }
    }
}

impl Execute for Add {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let IdAddress { id, address } = &self.member;
        change(context, None, |index| Request::MemberAdd { node: *id, address, index })
    }
}

impl Execute for Promote {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let Self { node } = *self;
        change(context, Some(node), |index| Request::MemberPromote { node, index })
    }
}

impl Execute for Remove {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let Self { node, force } = *self;
        change(context, Some(node), |index| Request::MemberRemove { node, index, force })
    }
}

/// Requests a change that is valid only for the current membership, so that a request that arrives
/// late or twice cannot undo a later change. If `node` is not a member, the error of a rejected
/// request names that reason, even if other things are wrong with it as well.
fn change<'a>(
    context: &mut Context<'_>,
    node: Option<u64>,
    order: impl FnOnce(Option<u64>) -> Request<'a>,
) -> Result<(), CommandError> {
    let before = context.ask(Request::Members)?;
    let ids: Vec<_> = before.members.iter().flatten().map(|member| one_line(&member.id)).collect();
    let reply = context.ask(order(before.index)).map_err(|error| match (error, node) {
        (CommandError::Refused(refusal), Some(node))
            if refusal.code == ErrorCode::BadRequest && !ids.contains(&node.to_string()) =>
        {
            CommandError::NoSuchMember { node, members: ids.join(", ").into() }
        }
        (error, _) => error,
    })?;
    context.print_reply(&reply)?;
    context.print_done()
}

fn table(members: &[MemberRow]) -> Vec<[String; 4]> {
    let head = ["ID", "ROLE", "ADDRESS", "INCARNATION"];
    let row = |member: &MemberRow| {
        let nothing = || "-".to_owned();
        [
            one_line(&member.id),
            one_line(&member.role),
            member.address.as_deref().map_or_else(nothing, one_line),
            member.incarnation.as_deref().map_or_else(nothing, one_line),
        ]
    };
    std::iter::once(head.map(str::to_owned)).chain(members.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Reply;

    #[test]
    fn a_row_shows_all_facts_of_a_member() {
        let line = r#"{"members":[{"id":1,"role":"voter","address":"a:1","incarnation":"00000000000000ff"},
            {"id":12,"role":"learner","address":"b:2","incarnation":null},
            {"id":13,"role":"outgoing","address":null,"incarnation":null}],"status":"ok"}"#;
        let members = Reply::parse(line.to_owned()).unwrap().members.unwrap();
        let mut out = Vec::new();
        write_columns(&mut out, &table(&members)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID  ROLE      ADDRESS  INCARNATION\n\
             1   voter     a:1      00000000000000ff\n\
             12  learner   b:2      -\n\
             13  outgoing  -        -\n"
        );
    }

    #[test]
    fn a_member_is_an_id_and_an_address() {
        let read = |text: &str| text.parse::<IdAddress>();
        for address in ["10.0.0.4:4001", "db-4:1", "[::1]:4001"] {
            let member = IdAddress { id: 4, address: address.to_owned() };
            assert_eq!(read(&format!("4={address}")), Ok(member));
        }
        assert_eq!(read("10.0.0.4:4001"), Err(IdAddressError::Shape));
        assert_eq!(read("four=a:1"), Err(IdAddressError::Id));
        assert_eq!(read("-4=a:1"), Err(IdAddressError::Id));
        assert_eq!(read("4=a"), Err(IdAddressError::Address(AddressError::Shape)));
        assert_eq!(read("4=ä:1"), Err(IdAddressError::NoAddress));
        assert_eq!(read(&format!("4={}:1", "a".repeat(1000))), Err(IdAddressError::NoAddress));
    }
}
