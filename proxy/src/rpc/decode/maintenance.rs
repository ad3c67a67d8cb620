//! Alarms.

use keygate_core::{AlarmAction, AlarmKind, AlarmRequest};
use keygate_proto::etcdserverpb as pb;
use pb::alarm_request;

use super::Rejection;

pub(super) fn alarm(request: pb::AlarmRequest) -> Result<AlarmRequest, Rejection> {
    let pb::AlarmRequest { action, member_id, alarm } = request;
    let action = match alarm_request::AlarmAction::try_from(action) {
        Ok(alarm_request::AlarmAction::Get) => AlarmAction::Get,
        Ok(alarm_request::AlarmAction::Activate) => AlarmAction::Activate,
        Ok(alarm_request::AlarmAction::Deactivate) => AlarmAction::Deactivate,
        // etcd answers nothing useful here; taking it for any of the three would be a guess.
        Err(_) => return Err(Rejection::UnknownNumber("AlarmRequest.action")),
    };
    let alarm = match pb::AlarmType::try_from(alarm) {
        Ok(pb::AlarmType::None) => AlarmKind::None,
        Ok(pb::AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(pb::AlarmType::Corrupt) => AlarmKind::Corrupt,
        Err(_) => return Err(Rejection::UnknownNumber("AlarmRequest.alarm")),
    };
    Ok(AlarmRequest { action, member: member_id, alarm })
}
