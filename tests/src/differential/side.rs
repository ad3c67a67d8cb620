//! One of the two servers, as the differential sees it.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;
use keygate_proto::etcdserverpb::StatusRequest;
use tonic::Code;

use super::{
    call::{Answer, Call, Caller, Reply},
    generate::USERS,
    normalise,
    watch::Streams,
};
use crate::harness::{Client, Plan, Program, Protection, Server};

/// A deliberate lie about what a server answered: proof that the comparison can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// Every hundredth range counts one key more.
    Count,
    /// Every hundredth refusal has another text, its code unchanged.
    Text,
    /// Every hundredth watch event is swallowed.
    Event,
    /// Every hundredth header is of a later revision.
    Revision,
    /// Every status tells of one byte more.
    Size,
}

/// A server, its connection and what the contest has learned about its ids.
pub(super) struct Side {
    pub(super) server: Arc<Server>,
    connection: Client,
    tokens: Vec<Option<String>>,
    pub(super) streams: Streams,
    pub(super) member: u64,
    /// Lease ids of the oracle to this side's, where servers picked them.
    pub(super) leases: HashMap<i64, i64>,
    pub(super) other: Other,
    tamper: Option<Tamper>,
    lies: usize,
}

/// What this side is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Sizes and orders that etcd does not promise may be other ones.
    AnotherProgram,
    SameProgram,
}

impl Side {
    pub(super) async fn start(program: Program, tamper: Option<Tamper>) -> Result<Side> {
        // Cheap password digests: the digest is not the subject and a user changes often.
        let plan = Plan::new(program, Protection::Plain).flags(&["--bcrypt-cost", "4"]).in_memory();
        let server = Arc::new(Server::start(plan).await?);
        let connection = server.root().await?;
        Side::on(server, connection, Other::AnotherProgram, tamper).await
    }

    /// A side that is one of several on `server`, reached by `connection`.
    pub(super) async fn on(
        server: Arc<Server>,
        connection: Client,
        other: Other,
        tamper: Option<Tamper>,
    ) -> Result<Side> {
        let status = connection.maintenance().status(StatusRequest {}).await?.into_inner();
        let member = status.header.map_or(0, |header| header.member_id);
        let streams = Streams::new(tamper == Some(Tamper::Event));
        let tokens = vec![None; USERS.len()];
        let leases = HashMap::new();
        Ok(Side { server, connection, tokens, streams, member, leases, other, tamper, lies: 0 })
    }

    pub(super) fn client(&self, caller: Caller) -> Client {
        match caller {
            Caller::Nobody => self.connection.with_token(None),
            Caller::User(user) => self.connection.with_token(self.tokens[user].as_deref()),
            Caller::Forged => self.connection.with_token(Some("ForgedForgedForg.7")),
        }
    }

    /// Makes the call with this side's ids; the answer carries the oracle's.
    pub(super) async fn call(&mut self, mut call: Call, caller: Caller) -> Answer {
        let drawn = call.encoded_len();
        normalise::request(&mut call, self);
        let sent = call.encoded_len();
        let login = match &call {
            Call::Authenticate(request) => USERS.iter().position(|user| *user == request.name),
            _ => None,
        };
        let mut answer = call.make(self, caller).await;
        normalise::size(&mut answer, drawn, sent);
        if let (Some(user), Answer::Ok(reply)) = (login, &answer)
            && let Reply::Authenticate(login) = &**reply
        {
            self.tokens[user] = Some(login.token.clone());
        }
        self.lie(&mut answer);
        answer
    }

    /// Learns that the oracle's lease `theirs` is `ours` here.
    pub(super) fn same_lease(&mut self, theirs: i64, ours: i64) {
        self.leases.insert(theirs, ours);
    }

    fn lie(&mut self, answer: &mut Answer) {
        match (self.tamper, answer) {
            (Some(Tamper::Count), Answer::Ok(reply)) => {
                if let Reply::Range(range) = &mut **reply
                    && lie_is_due(&mut self.lies)
                {
                    range.count += 1;
                }
            }
            (Some(Tamper::Text), Answer::Refused { code, message })
                if *code != Code::Ok && lie_is_due(&mut self.lies) =>
            {
                message.push('.');
            }
            (Some(Tamper::Revision), Answer::Ok(reply)) => {
                if let Some(header) = reply.header()
                    && lie_is_due(&mut self.lies)
                {
                    header.revision += 1;
                }
            }
            (Some(Tamper::Size), Answer::Ok(reply)) => {
                if let Reply::Status(status) = &mut **reply {
                    status.db_size += 1;
                }
            }
            _ => {}
        }
    }
}

fn lie_is_due(lies: &mut usize) -> bool {
    *lies += 1;
    lies.is_multiple_of(100)
}
