//! Quotas.

use keygate_core::{Answer, DEFAULT_TENANT, Plaintext, QuotaInfo, QuotaLimits, QuotaUse, Reply};
use keygate_engine::Identity;
use keygate_proto::admin as pb;

use super::{ANOTHER_ANSWER, Encoded};

pub(in crate::rpc) fn quotas(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::QuotaResponse> {
    let Answer::Quotas(quotas) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::QuotaResponse { quotas: quotas.into_iter().map(told).collect() })
}

fn told(info: QuotaInfo) -> pb::Quota {
    let QuotaInfo { tenant, prefix, limits, used, counted } = info;
    let QuotaLimits { keys, bytes, history } = limits;
    pb::Quota {
        tenant: tenant.map_or_else(|| DEFAULT_TENANT.to_owned(), String::from),
        prefix,
        limits: Some(pb::QuotaLimits { keys, bytes, history_bytes: history }),
        used: Some(amounts(used)),
        counted: counted.map(amounts),
    }
}

fn amounts(used: QuotaUse) -> pb::QuotaUse {
    let QuotaUse { keys, bytes, history } = used;
    pb::QuotaUse { keys, bytes, history_bytes: history }
}
