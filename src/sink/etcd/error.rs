//! What etcd's errors mean to the callers of a store.

use std::error::Error as _;

use tonic::{Code, ConnectError, Status};

use crate::store::StoreError;

/// A call that failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// It was not sent: nothing happened, and another member may take it.
    NotSent(String),
    /// This member cannot do it at the moment, and did not; another one may.
    Elsewhere(StoreError),
    /// The revision that was asked for is compacted.
    Compacted,
    /// The revision that was asked for is not there yet.
    Future,
    /// The request was too large. Nothing happened.
    TooLarge,
    /// Anything else.
    Store(StoreError),
}

impl CallError {
    /// Returns what is known about a call from what etcd, or the way to it, says.
    pub(super) fn of(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => CallError::of_status(&status),
            etcd_client::Error::TransportError(error) => {
                CallError::NotSent(describe("not connected", Some(&error)))
            }
            error => CallError::Store(StoreError::Unavailable(error.to_string())),
        }
    }

    /// As [`Self::of`], for the reason that a watch was ended with.
    pub(super) fn of_reason(reason: &str) -> Self {
        CallError::of_status(&Status::unknown(reason))
    }

    fn of_status(status: &Status) -> Self {
        let message = status.message();
        let says = |text: &str| message.contains(text);
        if was_not_sent(status) {
            return CallError::NotSent(describe(message, status.source()));
        }
        // The messages are part of etcd's interface: its own client tells errors apart by them.
        if says("required revision has been compacted") {
            CallError::Compacted
        } else if says("required revision is a future revision") {
            CallError::Future
        } else if says("request is too large") || says("larger than max") {
            CallError::TooLarge
        } else if says("database space exceeded") {
            CallError::Store(StoreError::NoSpace(message.to_owned()))
        } else if says("etcdserver: no leader") {
            CallError::Elsewhere(StoreError::NoLeader(message.to_owned()))
        } else if says("too many requests") {
            CallError::Elsewhere(StoreError::Unavailable(message.to_owned()))
        } else if is_denial(status) {
            CallError::Store(StoreError::Denied(message.to_owned()))
        } else if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented) {
            CallError::Store(StoreError::Unavailable(message.to_owned()))
        } else {
            CallError::Store(StoreError::Unknown(describe(message, status.source())))
        }
    }

    /// Returns whether the same call to another member may do better, when nothing is lost by doing it twice.
    pub(super) fn is_worth_another_try(&self) -> bool {
        match self {
            CallError::NotSent(_) | CallError::Elsewhere(_) => true,
            CallError::Store(error) => matches!(error, StoreError::Unknown(_)),
            _ => false,
        }
    }

    /// Returns whether certainly nothing happened, and another member may do it.
    pub(super) fn can_be_moved(&self) -> bool {
        matches!(self, CallError::NotSent(_) | CallError::Elsewhere(_))
    }
}

impl From<CallError> for StoreError {
    /// For calls that name no revision and send nothing large.
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(reason) => StoreError::Unavailable(reason),
            CallError::Elsewhere(error) | CallError::Store(error) => error,
            CallError::Compacted => StoreError::Unavailable("etcd has compacted what is current".to_owned()),
            CallError::Future => StoreError::Unavailable("etcd is behind its own revision".to_owned()),
            CallError::TooLarge => StoreError::Unavailable("etcd finds a small request too large".to_owned()),
        }
    }
}

fn is_denial(status: &Status) -> bool {
    let says = |text: &str| status.message().contains(text);
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
        || says("permission denied")
        || says("authentication failed")
        || says("invalid auth token")
        || says("user name is empty")
}

/// Returns whether no connection was there to send the request over.
fn was_not_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Returns a message with its causes, which is where transports say what happened.
fn describe(message: &str, mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = message.to_owned();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Outcome;

    fn store_error(code: Code, message: &str) -> StoreError {
        StoreError::from(CallError::of_status(&Status::new(code, message)))
    }

    #[test]
    fn what_did_not_happen_is_told_from_what_may_have_happened() {
        let did_not = [
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::PermissionDenied, "etcdserver: permission denied"),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
        ];
        for (code, message) in did_not {
            assert_eq!(store_error(code, message).outcome(), Outcome::DidNotHappen, "{message}");
        }
        let may_have = [
            // etcd says so also when it carries out the request that takes the last of its space.
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "error reading a body from connection"),
            (Code::Cancelled, "operation was canceled"),
            (Code::DeadlineExceeded, "deadline exceeded"),
            (Code::Internal, "stream closed"),
            (Code::Unknown, "transport error"),
        ];
        for (code, message) in may_have {
            assert_eq!(store_error(code, message).outcome(), Outcome::MayHaveHappened, "{message}");
        }
    }

    #[test]
    fn conditions_that_an_administrator_has_to_know_have_names() {
        let of = |code, message| CallError::of_status(&Status::new(code, message));
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert!(matches!(of(Code::OutOfRange, compacted), CallError::Compacted));
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert!(matches!(of(Code::OutOfRange, future), CallError::Future));
        assert!(matches!(of(Code::InvalidArgument, "etcdserver: request is too large"), CallError::TooLarge));
        let received = "grpc: received message larger than max (2200000 vs. 2097152)";
        assert!(matches!(of(Code::ResourceExhausted, received), CallError::TooLarge));
        let full = store_error(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(full, StoreError::NoSpace(_)));
        assert!(matches!(store_error(Code::Unavailable, "etcdserver: no leader"), StoreError::NoLeader(_)));
        assert!(matches!(
            store_error(Code::InvalidArgument, "etcdserver: user name is empty"),
            StoreError::Denied(_)
        ));
        assert!(matches!(
            CallError::of_reason("etcdserver: permission denied"),
            CallError::Store(StoreError::Denied(_))
        ));
    }
}
