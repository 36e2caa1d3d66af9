//! Groups: FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and an administrator's requests about them.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
        SyncGroupRequest, SyncGroupResponse,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        find_coordinator_response::Coordinator,
        join_group_response::JoinGroupResponseMember,
        leave_group_response::MemberResponse,
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};
use omb_broker::{ErrorCode, GroupInfo, GroupState, Join, JoinRefused, Joined, MemberInfo, Request, Sync};

use super::{Decoded, Decoding, Endpoint, Incoming, NODE, Rest, committer, millis, optional, text};
use crate::error::{error_code, result_code};

impl Decoding {
    pub(super) fn heartbeat(&mut self) -> Decoded<Incoming> {
        let it: HeartbeatRequest = self.body()?;
        let member = committer(it.member_id, it.group_instance_id, it.generation_id);
        Ok(self.ask(Request::Heartbeat { group: it.group_id.to_string(), member }))
    }

    pub(super) fn leave_group(&mut self) -> Decoded<Incoming> {
        let it: LeaveGroupRequest = self.body()?;
        let members = if self.version < 3 {
            vec![(it.member_id.to_string(), None)]
        } else {
            let member = |(id, static_id): (StrBytes, _)| (id.to_string(), optional(static_id));
            it.members.into_iter().map(|it| (it.member_id, it.group_instance_id)).map(member).collect()
        };
        Ok(self.ask(Request::LeaveGroup { group: it.group_id.to_string(), members }))
    }

    pub(super) fn describe_groups(&mut self) -> Decoded<Incoming> {
        let it: DescribeGroupsRequest = self.body()?;
        Ok(self.ask(Request::DescribeGroups { groups: names(it.groups) }))
    }

    pub(super) fn list_groups(&mut self) -> Decoded<Incoming> {
        let it: ListGroupsRequest = self.body()?;
        Ok(self.ask_with(vec![Request::ListGroups], Rest::Filters(it.states_filter, it.types_filter)))
    }

    pub(super) fn delete_groups(&mut self) -> Decoded<Incoming> {
        let it: DeleteGroupsRequest = self.body()?;
        Ok(self.ask(Request::DeleteGroups { groups: names(it.groups_names) }))
    }

    pub(super) fn find_coordinator(&mut self, endpoint: &Endpoint) -> Decoded<Incoming> {
        let it: FindCoordinatorRequest = self.body()?;
        let mut response = FindCoordinatorResponse::default();
        if self.version < 4 {
            response.node_id = NODE;
            response.host = text(&endpoint.host);
            response.port = i32::from(endpoint.port);
        } else {
            let coordinator = |key| {
                let here = Coordinator::default().with_key(key).with_node_id(NODE);
                here.with_host(text(&endpoint.host)).with_port(i32::from(endpoint.port))
            };
            response.coordinators = it.coordinator_keys.into_iter().map(coordinator).collect();
        }
        Ok(self.answer(&response))
    }

    pub(super) fn join_group(&mut self, client: &str, endpoint: &Endpoint) -> Decoded<Incoming> {
        let it: JoinGroupRequest = self.body()?;
        let rebalance_ms = if self.version == 0 { it.session_timeout_ms } else { it.rebalance_timeout_ms };
        let protocols: Vec<(String, Bytes)> =
            it.protocols.into_iter().map(|it| (it.name.to_string(), it.metadata)).collect();
        let topics = match it.protocol_type.as_str() {
            "consumer" => protocols.first().and_then(|(_, metadata)| subscribed_topics(metadata)),
            _ => None,
        };
        Ok(self.ask(Request::JoinGroup(Join {
            group: it.group_id.to_string(),
            member_id: it.member_id.to_string(),
            static_id: optional(it.group_instance_id),
            client_id: client.to_owned(),
            client_host: format!("/{}", endpoint.client.ip()),
            session_timeout: millis(it.session_timeout_ms),
            rebalance_timeout: millis(rebalance_ms),
            protocol_type: it.protocol_type.to_string(),
            protocols,
            topics: topics.unwrap_or_default(),
            id_required: self.version >= 4,
        })))
    }

    pub(super) fn sync_group(&mut self) -> Decoded<Incoming> {
        let it: SyncGroupRequest = self.body()?;
        let protocol = optional(it.protocol_type).zip(optional(it.protocol_name));
        let sync = Request::SyncGroup(Sync {
            group: it.group_id.to_string(),
            member_id: it.member_id.to_string(),
            static_id: optional(it.group_instance_id),
            generation: it.generation_id,
            protocol: protocol.clone(),
            assignments: it.assignments.into_iter().map(|it| (it.member_id.to_string(), it.assignment)).collect(),
        });
        Ok(self.ask_with(vec![sync], Rest::Protocol(protocol)))
    }
}

pub(super) fn synced(
    version: i16,
    result: Result<Bytes, ErrorCode>,
    protocol: Option<(String, String)>,
) -> SyncGroupResponse {
    let mut response = SyncGroupResponse::default().with_error_code(result_code(&result));
    response.assignment = result.unwrap_or_default();
    if version >= 5 {
        let (class, name) = protocol.unzip();
        response.protocol_type = class.map(text);
        response.protocol_name = name.map(text);
    }
    response
}

pub(super) fn left(version: i16, members: Vec<(String, Option<String>, Result<(), ErrorCode>)>) -> LeaveGroupResponse {
    let mut response = LeaveGroupResponse::default();
    if version < 3 {
        response.error_code = members.first().map_or(0, |(.., result)| result_code(result));
    } else {
        let member = |(id, static_id, result): (String, Option<String>, _)| {
            let left = MemberResponse::default().with_member_id(text(id));
            left.with_group_instance_id(static_id.map(text)).with_error_code(result_code(&result))
        };
        response.members = members.into_iter().map(member).collect();
    }
    response
}

pub(super) fn listed(
    version: i16,
    groups: Vec<GroupInfo>,
    states: &[StrBytes],
    types: &[StrBytes],
) -> ListGroupsResponse {
    let passes =
        |filter: &[StrBytes], value: &str| filter.is_empty() || filter.iter().any(|it| it.eq_ignore_ascii_case(value));
    let wanted = |it: &GroupInfo| passes(states, state_name(it.state)) && passes(types, GROUP_TYPE);
    let group = |it: GroupInfo| {
        let mut listed = ListedGroup::default().with_group_id(GroupId(text(it.name)));
        listed.protocol_type = text(it.protocol_type);
        if version >= 4 {
            listed.group_state = text(state_name(it.state));
        }
        if version >= 5 {
            listed.group_type = text(GROUP_TYPE);
        }
        listed
    };
    let groups = groups.into_iter().filter(wanted).map(group).collect();
    ListGroupsResponse::default().with_groups(groups)
}

pub(super) fn described(version: i16, groups: Vec<(String, Result<GroupInfo, ErrorCode>)>) -> DescribeGroupsResponse {
    let group = |(name, result)| described_group(version, name, result);
    DescribeGroupsResponse::default().with_groups(groups.into_iter().map(group).collect())
}

pub(super) fn deleted(groups: Vec<(String, Result<(), ErrorCode>)>) -> DeleteGroupsResponse {
    let group = |(name, result): (String, _)| {
        let deleted = DeletableGroupResult::default().with_group_id(GroupId(text(name)));
        deleted.with_error_code(result_code(&result))
    };
    DeleteGroupsResponse::default().with_results(groups.into_iter().map(group).collect())
}

fn names(groups: Vec<GroupId>) -> Vec<String> {
    groups.into_iter().map(|group| group.to_string()).collect()
}

/// The topics in a consumer's subscription: a version, then the names. The rest of it is between the clients.
fn subscribed_topics(metadata: &[u8]) -> Option<Vec<String>> {
    let (_version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk()?;
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, name) = rest.split_first_chunk()?;
        let (name, after) = name.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.push(str::from_utf8(name).ok()?.to_owned());
        rest = after;
    }
    Some(topics)
}

/// The type of all groups here, as `ListGroups` spells it.
const GROUP_TYPE: &str = "classic";

/// The protocol's name for a group's state.
fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::Joining => "PreparingRebalance",
        GroupState::Syncing => "CompletingRebalance",
        GroupState::Stable => "Stable",
    }
}

pub(super) fn joined(version: i16, result: Result<Joined, JoinRefused>) -> JoinGroupResponse {
    let response = JoinGroupResponse::default();
    match result {
        Ok(joined) => {
            let member = |(id, static_id, metadata): (String, Option<String>, Bytes)| {
                let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
                if version >= 5 { member.with_group_instance_id(static_id.map(text)) } else { member }
            };
            response
                .with_generation_id(joined.generation)
                .with_protocol_type((version >= 7).then(|| text(joined.protocol_type)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_member_id(text(joined.member_id))
                .with_members(joined.members.into_iter().map(member).collect())
        }
        Err(refused) => response
            .with_error_code(error_code(refused.code))
            .with_generation_id(-1)
            // Only from version 7 on may it be missing.
            .with_protocol_name((version < 7).then(StrBytes::default))
            .with_member_id(text(refused.member_id)),
    }
}

fn described_group(version: i16, name: String, result: Result<GroupInfo, ErrorCode>) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(GroupId(text(name)));
    let info = match result {
        Ok(info) => info,
        // Before version 6 a group that does not exist is described as dead.
        Err(_) if version < 6 => return described.with_group_state(text("Dead")),
        Err(code) => {
            let described = described.with_group_state(text("Dead")).with_error_code(error_code(code));
            return described.with_error_message(Some(text(code.to_string())));
        }
    };
    let member = |it: MemberInfo| {
        let member = DescribedGroupMember::default().with_member_id(text(it.id)).with_client_id(text(it.client_id));
        let member = member.with_client_host(text(it.client_host)).with_member_metadata(it.metadata);
        let member = member.with_member_assignment(it.assignment);
        if version >= 4 { member.with_group_instance_id(it.static_id.map(text)) } else { member }
    };
    described
        .with_group_state(text(state_name(info.state)))
        .with_protocol_type(text(info.protocol_type))
        .with_protocol_data(text(info.protocol))
        .with_members(info.members.into_iter().map(member).collect())
}
