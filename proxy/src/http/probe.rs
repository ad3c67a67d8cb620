//! What the pages ask of the server. A trait, so that their texts are tested without an engine.

use std::future::Future;
use std::pin::Pin;

use keygate_core::{
    AlarmKind, AlarmMember, InternalReason, KeyRange, KeyspaceId, Operation, Permit, Range, Refusal,
};
use keygate_engine::Port;

use crate::metrics::Moment;
use crate::quota_watch;

/// Who can ask for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readers {
    /// Whoever is shown the page of the client port.
    Anybody,
    /// Whoever reaches `--listen-metrics-urls`.
    Operators,
}

pub type Answered<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

/// The state of the server, of the default keyspace where it is about data.
pub trait Condition: Send + Sync {
    fn alarms(&self) -> Vec<AlarmMember>;
    fn has_leader(&self) -> bool;
    /// Tries to read one key.
    fn read(&self, serializable: bool) -> Answered<'_>;
    /// For the page of metrics.
    fn moment(&self, readers: Readers) -> Moment;
}

/// The engine's, as a serving thread sees it.
pub struct EngineCondition {
    port: Port,
    /// Of so many tenants the operators' page has series of their own.
    named_tenants: usize,
}

impl EngineCondition {
    pub fn new(port: Port, named_tenants: usize) -> Self {
        Self { port, named_tenants }
    }
}

impl Condition for EngineCondition {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.port.view().keyspace(KeyspaceId::DEFAULT).map(|keyspace| keyspace.alarms()).unwrap_or_default()
    }

    fn has_leader(&self) -> bool {
        self.port.engine().stats().has_leader
    }

    fn read(&self, serializable: bool) -> Answered<'_> {
        Box::pin(async move {
            let mut range = Range::of(KeyRange::Single(bytes::Bytes::from_static(b"\0")));
            range.keys_only = true;
            range.limit = 1;
            range.serializable = serializable;
            let permit =
                Permit::internal(InternalReason::HealthProbe, KeyspaceId::DEFAULT, Operation::Range(range));
            self.port.read(&self.port.view(), permit).await.map(drop)
        })
    }

    fn moment(&self, readers: Readers) -> Moment {
        let engine = self.port.engine();
        let tenants = match readers {
            Readers::Anybody => Vec::new(),
            Readers::Operators => engine.figures(self.named_tenants),
        };
        let named = |alarm: AlarmMember| Some((alarm.member, alarm_name(alarm.alarm)?));
        Moment {
            policy_revision: self.port.view().platform_policy().revision,
            alarms: self.alarms().into_iter().filter_map(named).collect(),
            engine: engine.stats(),
            identity: engine.identity(),
            quota_bytes: engine.options().quota_bytes,
            quotas_reached: quota_watch::reached(self.port.view().limited()),
            readers,
            tenants,
        }
    }
}

/// etcd's word for it.
pub(super) fn alarm_name(alarm: AlarmKind) -> Option<&'static str> {
    match alarm {
        AlarmKind::None => None,
        AlarmKind::NoSpace => Some("NOSPACE"),
        AlarmKind::Corrupt => Some("CORRUPT"),
    }
}
