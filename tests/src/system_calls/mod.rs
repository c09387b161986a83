//! Every call that the program makes of the operating system, failing in every way that it may.
//!
//! A test of one failing disk shows that a failing write is noticed. It says nothing about a socket
//! that cannot be created, a thread that does not start, or a call that a signal interrupts; and a
//! program makes some sixty kinds of calls. So this is a table: calls, the errors that their manual
//! pages give, and what may become of a server then. A traced run without faults says which calls
//! there are; each of them then fails in each way, the first time, later, and from then on, in a
//! run of its own. A call that the table does not know is an open row, and makes the whole fail.
//!
//! Whatever fails, a server may go on, refuse to start, or stop a node or itself; the table says
//! which. It may not hang, spin, panic, end without a word, answer what is not so, or lose what it
//! acknowledged: after each run it starts again on the same files without faults, and everything
//! must be there.

mod calls;
mod client;
mod run;
mod tracer;

pub use calls::{Must, Row, TABLE, row_of};
pub use run::{Case, Moment, Outcome, Subject, Violation, calls_of, prepare};
