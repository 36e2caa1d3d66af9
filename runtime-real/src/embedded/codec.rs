//! The Kafka protocol in front of the broker: frames to [`Request`]s, [`Response`]s to frames.
//!
//! Versions are those of librdkafka 2.12 and of the Java clients up to 4.1 (which begin at the versions of KIP-896).
//! What needs no broker to answer (which versions there are, who coordinates) is answered here.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, CreatePartitionsRequest, CreatePartitionsResponse,
        CreateTopicsRequest, CreateTopicsResponse, DeleteGroupsRequest, DeleteGroupsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
        DescribeConfigsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FetchRequest, FindCoordinatorRequest,
        FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse, InitProducerIdRequest,
        InitProducerIdResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
        ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
        MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
        OffsetFetchRequest, OffsetFetchResponse, ProduceRequest, ProduceResponse, ProducerId, RequestHeader,
        SyncGroupRequest, SyncGroupResponse, TopicName,
        api_versions_response::ApiVersion,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        delete_groups_response::DeletableGroupResult,
        delete_topics_response::DeletableTopicResult,
        describe_cluster_response::DescribeClusterBroker,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        find_coordinator_response::Coordinator,
        join_group_response::JoinGroupResponseMember,
        leave_group_response::MemberResponse,
        list_groups_response::ListedGroup,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use omb_broker::{
    Acks, Committed, Committer, ErrorCode, FetchPartition, Fetched, GroupInfo, GroupState, Join, NewTopic,
    OffsetCommit, OffsetSpec, ProducePartition, Produced, Request, Response, Sync, TopicId, TopicRef,
};
use uuid::Uuid;

use super::{batch, outgoing::Outgoing, shape};

/// The one broker there is.
const NODE: BrokerId = BrokerId(1);

/// Records in one response, in bytes, save for a single batch that is larger.
const RESPONSE_MAX: u32 = 1 << 30;

/// The protocol's numbers for its errors.
pub(super) mod code {
    pub(crate) const CORRUPT_MESSAGE: i16 = 2;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const INVALID_REQUEST: i16 = 42;
    pub(crate) const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
    pub(crate) const INVALID_RECORD: i16 = 87;
}

fn error_code(code: ErrorCode) -> i16 {
    match code {
        ErrorCode::OffsetOutOfRange => 1,
        ErrorCode::CorruptMessage => code::CORRUPT_MESSAGE,
        ErrorCode::UnknownTopicOrPartition => 3,
        ErrorCode::RequestTimedOut => 7,
        ErrorCode::MessageTooLarge => 10,
        ErrorCode::InvalidTopic => 17,
        ErrorCode::IllegalGeneration => 22,
        ErrorCode::InconsistentGroupProtocol => 23,
        ErrorCode::InvalidGroupId => 24,
        ErrorCode::UnknownMemberId => 25,
        ErrorCode::InvalidSessionTimeout => 26,
        ErrorCode::RebalanceInProgress => 27,
        ErrorCode::TopicAlreadyExists => 36,
        ErrorCode::InvalidPartitions => 37,
        ErrorCode::InvalidReplicationFactor => 38,
        ErrorCode::InvalidConfig => 40,
        ErrorCode::OutOfOrderSequence => 45,
        ErrorCode::InvalidProducerEpoch => 47,
        ErrorCode::NonEmptyGroup => 68,
        ErrorCode::GroupIdNotFound => 69,
        ErrorCode::MemberIdRequired => 79,
        ErrorCode::FencedInstanceId => 82,
        ErrorCode::GroupSubscribedToTopic => 86,
        ErrorCode::UnknownTopicId => 100,
    }
}

fn result_code<T>(result: &Result<T, ErrorCode>) -> i16 {
    result.as_ref().err().map_or(0, |&code| error_code(code))
}

/// The requests that are served: first and last version.
const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 5),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 2),
];

/// Why a frame ends its connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a frame too short for a request")]
    Short,
    #[error("request of unknown kind {0}")]
    UnknownApi(i16),
    #[error("{0:?} of version {1}, which is not served")]
    Version(ApiKey, i16),
    #[error("{0:?} of version {1} is malformed")]
    Shape(ApiKey, i16),
    #[error("{0:?} of version {1}: {2}")]
    Decode(ApiKey, i16, String),
}

/// The connection a request came on, as far as answers depend on it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Where the client is told to find this broker.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) client: SocketAddr,
    pub(super) cluster: String,
}

/// A request that is understood.
pub(super) enum Incoming {
    /// Answered without the broker.
    Answered(Outgoing),
    /// To be answered by the broker: all of the requests, then [`Ticket::answer`].
    Ask(Vec<Request>, Ticket),
}

/// What it takes to answer a request.
#[derive(Debug)]
pub(super) struct Ticket {
    api: ApiKey,
    version: i16,
    correlation: i32,
    /// Whether nobody waits for the answer.
    pub(super) silent: bool,
    rest: Rest,
}

/// What the answer repeats of the request, beside what the broker's response does.
#[derive(Debug)]
enum Rest {
    None,
    /// Batches that were refused before they got to the broker.
    Refused(Vec<(TopicRef, i32, i16)>),
    /// Class and name of the protocol.
    Protocol(Option<(String, String)>),
    /// Groups, in the order of the requests.
    Groups(Vec<String>),
    /// Which keys of each topic are wanted, and the broker's own resources, already answered.
    Configs(Vec<Option<Vec<StrBytes>>>, Vec<DescribeConfigsResult>),
    /// Whether only groups in some states, or of some types, are wanted.
    Filters(Vec<StrBytes>, Vec<StrBytes>),
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn optional(text: Option<StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn bytes_max(bytes: i32) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}

/// A topic as this version names it.
fn topic_ref(by_id: bool, name: &TopicName, id: Uuid) -> TopicRef {
    if by_id { TopicRef::Id(TopicId(id.as_u128())) } else { TopicRef::Name(name.to_string()) }
}

fn name_of(topic: &TopicRef) -> TopicName {
    match topic {
        TopicRef::Name(name) => TopicName(text(name.as_str())),
        TopicRef::Id(_) => TopicName::default(),
    }
}

fn id_of(topic: &TopicRef) -> Uuid {
    match topic {
        TopicRef::Name(_) => Uuid::nil(),
        TopicRef::Id(TopicId(id)) => Uuid::from_u128(*id),
    }
}

/// Reads a frame.
pub(super) fn read(mut frame: Bytes, endpoint: &Endpoint) -> Result<Incoming, Malformed> {
    let (&[api_high, api_low, version_high, version_low, c0, c1, c2, c3], _) =
        frame.split_first_chunk().ok_or(Malformed::Short)?;
    let number = i16::from_be_bytes([api_high, api_low]);
    let version = i16::from_be_bytes([version_high, version_low]);
    let correlation = i32::from_be_bytes([c0, c1, c2, c3]);
    let api = ApiKey::try_from(number).map_err(|()| Malformed::UnknownApi(number))?;
    let &(_, first, last) = SERVED.iter().find(|(served, ..)| *served == api).ok_or(Malformed::UnknownApi(number))?;
    if !(first..=last).contains(&version) {
        if api == ApiKey::ApiVersions {
            // A newer client learns in version 0 what there is, and asks again (KIP-511).
            let mut response = api_versions(0);
            response.error_code = code::UNSUPPORTED_VERSION;
            return Ok(Incoming::Answered(encode(api, 0, correlation, &response)));
        }
        return Err(Malformed::Version(api, version));
    }
    let decoding = |error: &dyn std::fmt::Display| Malformed::Decode(api, version, error.to_string());
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).map_err(|it| decoding(&it))?;
    let client = optional(header.client_id).unwrap_or_default();
    shape::check(api, version, &frame).ok_or(Malformed::Shape(api, version))?;
    let request = Decoding { frame, api, version, correlation };
    request.decode(&client, endpoint).map_err(|error| decoding(&error))
}

struct Decoding {
    frame: Bytes,
    api: ApiKey,
    version: i16,
    correlation: i32,
}

type Decoded<T> = Result<T, Box<dyn std::error::Error + Send + std::marker::Sync>>;

impl Decoding {
    fn body<R: Decodable>(&mut self) -> Decoded<R> {
        Ok(R::decode(&mut self.frame, self.version)?)
    }

    fn ask(&self, request: Request) -> Incoming {
        self.ask_with(vec![request], Rest::None)
    }

    fn ask_with(&self, requests: Vec<Request>, rest: Rest) -> Incoming {
        let silent = matches!(requests[..], [Request::Produce { acks: Acks::None, .. }]);
        let &Self { api, version, correlation, .. } = self;
        Incoming::Ask(requests, Ticket { api, version, correlation, silent, rest })
    }

    fn answer<R: Encodable + HeaderVersion>(&self, response: &R) -> Incoming {
        Incoming::Answered(encode(self.api, self.version, self.correlation, response))
    }

    fn decode(mut self, client: &str, endpoint: &Endpoint) -> Decoded<Incoming> {
        Ok(match self.api {
            ApiKey::Produce => self.produce()?,
            ApiKey::Fetch => self.fetch()?,
            ApiKey::ListOffsets => self.list_offsets()?,
            ApiKey::Metadata => self.metadata()?,
            ApiKey::OffsetCommit => self.offset_commit()?,
            ApiKey::OffsetFetch => self.offset_fetch()?,
            ApiKey::FindCoordinator => self.find_coordinator(endpoint)?,
            ApiKey::JoinGroup => self.join_group(client, endpoint)?,
            ApiKey::SyncGroup => self.sync_group()?,
            ApiKey::Heartbeat => {
                let it: HeartbeatRequest = self.body()?;
                let member = committer(it.member_id, it.group_instance_id, it.generation_id);
                self.ask(Request::Heartbeat { group: it.group_id.to_string(), member })
            }
            ApiKey::LeaveGroup => {
                let it: LeaveGroupRequest = self.body()?;
                let members = if self.version < 3 {
                    vec![(it.member_id.to_string(), None)]
                } else {
                    let member = |(id, static_id): (StrBytes, _)| (id.to_string(), optional(static_id));
                    it.members.into_iter().map(|it| (it.member_id, it.group_instance_id)).map(member).collect()
                };
                self.ask(Request::LeaveGroup { group: it.group_id.to_string(), members })
            }
            ApiKey::DescribeGroups => {
                let it: DescribeGroupsRequest = self.body()?;
                self.ask(Request::DescribeGroups { groups: names(it.groups) })
            }
            ApiKey::ListGroups => {
                let it: ListGroupsRequest = self.body()?;
                self.ask_with(vec![Request::ListGroups], Rest::Filters(it.states_filter, it.types_filter))
            }
            ApiKey::DeleteGroups => {
                let it: DeleteGroupsRequest = self.body()?;
                self.ask(Request::DeleteGroups { groups: names(it.groups_names) })
            }
            ApiKey::OffsetDelete => {
                let it: OffsetDeleteRequest = self.body()?;
                let partition = |topic: &TopicName, index| (topic.to_string(), index);
                let partitions = it
                    .topics
                    .iter()
                    .flat_map(|topic| topic.partitions.iter().map(|it| partition(&topic.name, it.partition_index)));
                let partitions = partitions.collect();
                self.ask(Request::DeleteOffsets { group: it.group_id.to_string(), partitions })
            }
            ApiKey::ApiVersions => {
                let _: ApiVersionsRequest = self.body()?;
                self.answer(&api_versions(self.version))
            }
            ApiKey::CreateTopics => self.create_topics()?,
            ApiKey::DeleteTopics => {
                let it: DeleteTopicsRequest = self.body()?;
                let named = it.topic_names.into_iter().map(|name| TopicRef::Name(name.to_string()));
                let either = it.topics.into_iter().map(|topic| match topic.name {
                    Some(name) => TopicRef::Name(name.to_string()),
                    None => TopicRef::Id(TopicId(topic.topic_id.as_u128())),
                });
                self.ask(Request::DeleteTopics { topics: named.chain(either).collect() })
            }
            ApiKey::CreatePartitions => {
                let it: CreatePartitionsRequest = self.body()?;
                let topics = it.topics.into_iter().map(|topic| (topic.name.to_string(), topic.count)).collect();
                self.ask(Request::CreatePartitions { topics, validate_only: it.validate_only })
            }
            ApiKey::DescribeConfigs => self.describe_configs()?,
            ApiKey::InitProducerId => self.init_producer_id()?,
            ApiKey::DescribeCluster => {
                let _: DescribeClusterRequest = self.body()?;
                self.answer(&describe_cluster(endpoint))
            }
            other => unreachable!("{other:?} is not served"),
        })
    }

    fn produce(&mut self) -> Decoded<Incoming> {
        let it: ProduceRequest = self.body()?;
        let by_id = self.version >= 13;
        let (mut partitions, mut refused) = (Vec::new(), Vec::new());
        for topic in &it.topic_data {
            for partition in &topic.partition_data {
                let topic = topic_ref(by_id, &topic.name, topic.topic_id);
                let batch = match &it.transactional_id {
                    None => batch::parse(partition.records.as_ref()),
                    Some(_) => Err(code::INVALID_REQUEST),
                };
                match batch {
                    Ok(batch) => partitions.push(ProducePartition { topic, partition: partition.index, batch }),
                    Err(code) => refused.push((topic, partition.index, code)),
                }
            }
        }
        let acks = if it.acks == 0 { Acks::None } else { Acks::Stored };
        let produce = Request::Produce { acks, timeout: millis(it.timeout_ms), partitions };
        Ok(self.ask_with(vec![produce], Rest::Refused(refused)))
    }

    fn fetch(&mut self) -> Decoded<Incoming> {
        let it: FetchRequest = self.body()?;
        let by_id = self.version >= 13;
        let mut partitions = Vec::new();
        for topic in &it.topics {
            for partition in &topic.partitions {
                partitions.push(FetchPartition {
                    topic: topic_ref(by_id, &topic.topic, topic.topic_id),
                    partition: partition.partition,
                    offset: partition.fetch_offset,
                    max_bytes: bytes_max(partition.partition_max_bytes),
                });
            }
        }
        Ok(self.ask(Request::Fetch {
            max_wait: millis(it.max_wait_ms),
            min_bytes: bytes_max(it.min_bytes),
            // Whatever a client would take, a response's length has to fit its 31 bits.
            max_bytes: bytes_max(it.max_bytes).min(RESPONSE_MAX),
            partitions,
        }))
    }

    fn list_offsets(&mut self) -> Decoded<Incoming> {
        let it: ListOffsetsRequest = self.body()?;
        let spec = |timestamp| match timestamp {
            -1 => OffsetSpec::Latest,
            // -4 asks for the first offset on local disk; there is no other tier here.
            -2 | -4 => OffsetSpec::Earliest,
            -3 => OffsetSpec::MaxTimestamp,
            // -5 asks for what a remote tier holds: nothing, as beyond all time.
            ..0 => OffsetSpec::AtTimestamp(i64::MAX),
            at => OffsetSpec::AtTimestamp(at),
        };
        let partitions = it.topics.iter().flat_map(|topic| {
            let name = TopicRef::Name(topic.name.to_string());
            topic.partitions.iter().map(move |it| (name.clone(), it.partition_index, spec(it.timestamp)))
        });
        let partitions = partitions.collect();
        Ok(self.ask(Request::ListOffsets { partitions }))
    }

    fn metadata(&mut self) -> Decoded<Incoming> {
        let it: MetadataRequest = self.body()?;
        let topics = it.topics.filter(|topics| !(self.version == 0 && topics.is_empty()));
        let topics = topics.map(|topics| {
            let topic = |name: Option<TopicName>, id: Uuid| match name {
                Some(name) => TopicRef::Name(name.to_string()),
                None => TopicRef::Id(TopicId(id.as_u128())),
            };
            topics.into_iter().map(|it| topic(it.name, it.topic_id)).collect()
        });
        let create_missing = self.version < 4 || it.allow_auto_topic_creation;
        Ok(self.ask(Request::Metadata { topics, create_missing }))
    }

    fn offset_commit(&mut self) -> Decoded<Incoming> {
        let it: OffsetCommitRequest = self.body()?;
        let mut offsets = Vec::new();
        for topic in it.topics {
            for partition in topic.partitions {
                offsets.push(OffsetCommit {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: optional(partition.committed_metadata).unwrap_or_default(),
                });
            }
        }
        let committer = committer(it.member_id, it.group_instance_id, it.generation_id_or_member_epoch);
        Ok(self.ask(Request::CommitOffsets { group: it.group_id.to_string(), committer, offsets }))
    }

    fn offset_fetch(&mut self) -> Decoded<Incoming> {
        let it: OffsetFetchRequest = self.body()?;
        let pairs = |name: &TopicName, indexes: Vec<i32>| {
            let name = name.to_string();
            indexes.into_iter().map(move |index| (name.clone(), index))
        };
        let mut groups = Vec::new();
        if self.version < 8 {
            let partitions = it.topics.map(|topics| {
                topics.into_iter().flat_map(|topic| pairs(&topic.name, topic.partition_indexes)).collect()
            });
            groups.push((it.group_id.to_string(), partitions));
        }
        for group in it.groups {
            let partitions = group.topics.map(|topics| {
                topics.into_iter().flat_map(|topic| pairs(&topic.name, topic.partition_indexes)).collect()
            });
            groups.push((group.group_id.to_string(), partitions));
        }
        let names = groups.iter().map(|(group, _)| group.clone()).collect();
        let fetch = |(group, partitions)| Request::FetchOffsets { group, partitions };
        Ok(self.ask_with(groups.into_iter().map(fetch).collect(), Rest::Groups(names)))
    }

    fn find_coordinator(&mut self, endpoint: &Endpoint) -> Decoded<Incoming> {
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

    fn join_group(&mut self, client: &str, endpoint: &Endpoint) -> Decoded<Incoming> {
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

    fn sync_group(&mut self) -> Decoded<Incoming> {
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

    fn create_topics(&mut self) -> Decoded<Incoming> {
        let it: CreateTopicsRequest = self.body()?;
        let mut topics = Vec::new();
        for topic in it.topics {
            // Assignments name the replicas of each partition; here they can only name the one broker.
            let (partitions, replicas) = match topic.assignments.len() {
                0 => (topic.num_partitions, topic.replication_factor),
                count => {
                    let most = topic.assignments.iter().map(|it| it.broker_ids.len()).max().unwrap_or(0);
                    (i32::try_from(count)?, i16::try_from(most)?)
                }
            };
            let configs = topic.configs.into_iter();
            topics.push(NewTopic {
                name: topic.name.to_string(),
                partitions,
                replication_factor: replicas,
                configs: configs.filter_map(|it| Some((it.name.to_string(), it.value?.to_string()))).collect(),
            });
        }
        Ok(self.ask(Request::CreateTopics { topics, validate_only: it.validate_only }))
    }

    fn describe_configs(&mut self) -> Decoded<Incoming> {
        /// Resource types of the protocol.
        const TOPIC: i8 = 2;
        const BROKER: i8 = 4;
        let it: DescribeConfigsRequest = self.body()?;
        let (mut topics, mut keys, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for resource in it.resources {
            if resource.resource_type == TOPIC {
                topics.push(resource.resource_name.to_string());
                keys.push(resource.configuration_keys);
                continue;
            }
            let mut result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name);
            // The broker itself has nothing to configure over the wire.
            if resource.resource_type != BROKER {
                result.error_code = code::INVALID_REQUEST;
                result.error_message = Some(text("The embedded broker has configurations of topics only."));
            }
            others.push(result);
        }
        Ok(self.ask_with(vec![Request::DescribeConfigs { topics }], Rest::Configs(keys, others)))
    }

    fn init_producer_id(&mut self) -> Decoded<Incoming> {
        let it: InitProducerIdRequest = self.body()?;
        if it.transactional_id.is_some() {
            // Transactions are not served; a producer that asks for them should stop, not try again.
            let refused = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
            return Ok(self.answer(&refused.with_error_code(code::INVALID_REQUEST)));
        }
        let current = (it.producer_id.0 >= 0).then_some((it.producer_id.0, it.producer_epoch));
        Ok(self.ask(Request::InitProducerId { current }))
    }
}

fn names(groups: Vec<GroupId>) -> Vec<String> {
    groups.into_iter().map(|group| group.to_string()).collect()
}

fn committer(member_id: StrBytes, static_id: Option<StrBytes>, generation: i32) -> Committer {
    Committer { member_id: member_id.to_string(), static_id: optional(static_id), generation }
}

/// The topics in a consumer's subscription: a version, then the names. What else it says is between the clients.
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

fn api_versions(version: i16) -> ApiVersionsResponse {
    let api = |&(api, first, last): &(ApiKey, i16, i16)| {
        // librdkafka takes a broker that does not list the oldest Produce for one that cannot take compressed batches
        // either; Kafka 4 lists it for that reason, and refuses it just the same.
        let first = if api == ApiKey::Produce { 0 } else { first };
        ApiVersion::default().with_api_key(api as i16).with_min_version(first).with_max_version(last)
    };
    let mut response = ApiVersionsResponse::default().with_api_keys(SERVED.iter().map(api).collect());
    if version < 3 {
        response.finalized_features_epoch = -1;
    }
    response
}

fn describe_cluster(endpoint: &Endpoint) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default().with_broker_id(NODE).with_host(text(&endpoint.host));
    DescribeClusterResponse::default()
        .with_cluster_id(text(&endpoint.cluster))
        .with_controller_id(NODE)
        .with_brokers(vec![broker.with_port(i32::from(endpoint.port))])
}

/// A response without its length.
fn encode<R: Encodable + HeaderVersion>(api: ApiKey, version: i16, correlation: i32, response: &R) -> Outgoing {
    let mut bytes = BytesMut::new();
    bytes.put_i32(correlation);
    if api.response_header_version(version) >= 1 {
        bytes.put_u8(0);
    }
    response.encode(&mut bytes, version).expect("a response is made for the version it answers");
    let mut message = Outgoing::default();
    message.put_shared(bytes.freeze());
    message
}

impl Ticket {
    /// The answer, from the broker's responses to all requests.
    pub(super) fn answer(self, mut responses: Vec<Response>, endpoint: &Endpoint) -> Outgoing {
        if let Rest::Groups(groups) = self.rest {
            let response = offset_fetch(self.version, groups, responses);
            return encode(self.api, self.version, self.correlation, &response);
        }
        let response = responses.pop().expect("every request is answered");
        let Self { api, version, correlation, rest, .. } = self;
        macro_rules! encode {
            ($response:expr) => {
                encode(api, version, correlation, &$response)
            };
        }
        match (response, rest) {
            (Response::Fetch(fetched), _) => fetch(version, correlation, &fetched),
            (Response::Produce(produced), Rest::Refused(refused)) => encode!(produce(version, produced, refused)),
            (Response::ListOffsets(listed), _) => {
                let mut topics: Vec<ListOffsetsTopicResponse> = Vec::new();
                for (topic, index, result) in listed {
                    let mut partition = ListOffsetsPartitionResponse::default()
                        .with_partition_index(index)
                        .with_error_code(result_code(&result));
                    if let Ok(listed) = result {
                        partition = partition.with_offset(listed.offset).with_timestamp(listed.timestamp_ms);
                    }
                    let name = name_of(&topic);
                    let at = position_of(
                        &mut topics,
                        |it| it.name == name,
                        || ListOffsetsTopicResponse::default().with_name(name.clone()),
                    );
                    at.partitions.push(partition);
                }
                encode!(ListOffsetsResponse::default().with_topics(topics))
            }
            (Response::Metadata(topics), _) => encode!(metadata(topics, endpoint)),
            (Response::CreateTopics(topics), _) => {
                let topic = |(name, result): (String, Result<_, _>)| created(version, name, result);
                encode!(CreateTopicsResponse::default().with_topics(topics.into_iter().map(topic).collect()))
            }
            (Response::DeleteTopics(topics), _) => {
                let topic = |(topic, result): (TopicRef, Result<_, ErrorCode>)| {
                    let mut deleted = DeletableTopicResult::default().with_error_code(result_code(&result));
                    deleted.name = matches!(topic, TopicRef::Name(_)).then(|| name_of(&topic));
                    deleted.topic_id = id_of(&topic);
                    if let Ok(info) = result {
                        let info: omb_broker::TopicInfo = info;
                        deleted.name = Some(TopicName(text(info.name)));
                        deleted.topic_id = Uuid::from_u128(info.id.0);
                    }
                    deleted
                };
                encode!(DeleteTopicsResponse::default().with_responses(topics.into_iter().map(topic).collect()))
            }
            (Response::CreatePartitions(topics), _) => {
                let topic = |(name, result): (String, Result<(), omb_broker::Refusal>)| {
                    let grown = CreatePartitionsTopicResult::default().with_name(TopicName(text(name)));
                    match result {
                        Ok(()) => grown,
                        Err(refusal) => {
                            grown.with_error_code(error_code(refusal.code)).with_error_message(Some(text(refusal.text)))
                        }
                    }
                };
                encode!(CreatePartitionsResponse::default().with_results(topics.into_iter().map(topic).collect()))
            }
            (Response::DescribeConfigs(topics), Rest::Configs(keys, others)) => {
                let topics = topics.into_iter().zip(keys).map(|((name, result), keys)| {
                    let mut described =
                        DescribeConfigsResult::default().with_resource_type(2).with_resource_name(text(name));
                    described.error_code = result_code(&result);
                    let wanted = |key: &str| keys.as_ref().is_none_or(|keys| keys.iter().any(|it| it.as_str() == key));
                    for config in result.unwrap_or_default().into_iter().filter(|it| wanted(&it.key)) {
                        described.configs.push(
                            DescribeConfigsResourceResult::default()
                                .with_name(text(config.key))
                                .with_value(Some(text(config.value)))
                                .with_config_source(config_source(config.default)),
                        );
                    }
                    described
                });
                encode!(DescribeConfigsResponse::default().with_results(topics.chain(others).collect()))
            }
            (Response::InitProducerId(result), _) => {
                let (id, epoch) = result.unwrap_or((-1, -1));
                let response = InitProducerIdResponse::default().with_producer_id(ProducerId(id));
                encode!(response.with_producer_epoch(epoch).with_error_code(result_code(&result)))
            }
            (Response::JoinGroup(result), _) => encode!(join_group(version, result)),
            (Response::SyncGroup(result), Rest::Protocol(protocol)) => {
                let mut response = SyncGroupResponse::default().with_error_code(result_code(&result));
                response.assignment = result.unwrap_or_default();
                if version >= 5 {
                    let (class, name) = protocol.unzip();
                    response.protocol_type = class.map(text);
                    response.protocol_name = name.map(text);
                }
                encode!(response)
            }
            (Response::Heartbeat(result), _) => {
                encode!(HeartbeatResponse::default().with_error_code(result_code(&result)))
            }
            (Response::LeaveGroup(members), _) => {
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
                encode!(response)
            }
            (Response::CommitOffsets(offsets), _) => {
                let mut topics: Vec<OffsetCommitResponseTopic> = Vec::new();
                for (topic, index, result) in offsets {
                    let name = TopicName(text(topic));
                    let at = position_of(
                        &mut topics,
                        |it| it.name == name,
                        || OffsetCommitResponseTopic::default().with_name(name.clone()),
                    );
                    let partition = OffsetCommitResponsePartition::default().with_partition_index(index);
                    at.partitions.push(partition.with_error_code(result_code(&result)));
                }
                encode!(OffsetCommitResponse::default().with_topics(topics))
            }
            (Response::DeleteOffsets(result), _) => {
                let mut response = OffsetDeleteResponse::default().with_error_code(result_code(&result));
                for (topic, index, result) in result.unwrap_or_default() {
                    let name = TopicName(text(topic));
                    let at = position_of(
                        &mut response.topics,
                        |it| it.name == name,
                        || OffsetDeleteResponseTopic::default().with_name(name.clone()),
                    );
                    let partition = OffsetDeleteResponsePartition::default().with_partition_index(index);
                    at.partitions.push(partition.with_error_code(result_code(&result)));
                }
                encode!(response)
            }
            (Response::ListGroups(groups), Rest::Filters(states, types)) => {
                let passes = |filter: &[StrBytes], value: &str| {
                    filter.is_empty() || filter.iter().any(|it| it.eq_ignore_ascii_case(value))
                };
                let wanted = |it: &GroupInfo| passes(&states, state_name(it.state)) && passes(&types, GROUP_TYPE);
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
                encode!(ListGroupsResponse::default().with_groups(groups))
            }
            (Response::DescribeGroups(groups), _) => {
                let group = |(name, result)| described_group(version, name, result);
                encode!(DescribeGroupsResponse::default().with_groups(groups.into_iter().map(group).collect()))
            }
            (Response::DeleteGroups(groups), _) => {
                let group = |(name, result): (String, _)| {
                    let deleted = DeletableGroupResult::default().with_group_id(GroupId(text(name)));
                    deleted.with_error_code(result_code(&result))
                };
                encode!(DeleteGroupsResponse::default().with_results(groups.into_iter().map(group).collect()))
            }
            (response, rest) => unreachable!("{api:?} is not answered by {response:?} and {rest:?}"),
        }
    }
}

/// The type of all groups here, as `ListGroups` spells it.
const GROUP_TYPE: &str = "classic";

/// The protocol's word for a group's state.
fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::Joining => "PreparingRebalance",
        GroupState::Syncing => "CompletingRebalance",
        GroupState::Stable => "Stable",
    }
}

/// The protocol's number for where a configuration value comes from: the topic, or a default.
fn config_source(default: bool) -> i8 {
    if default { 5 } else { 1 }
}

/// The element that `is` the one looked for, made and appended if there is none. Looks at the end first: equal ones follow each other.
fn position_of<T>(all: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = all.iter().rposition(is).unwrap_or(all.len());
    if at == all.len() {
        all.push(new());
    }
    &mut all[at]
}

fn produce(version: i16, produced: Vec<Produced>, refused: Vec<(TopicRef, i32, i16)>) -> ProduceResponse {
    let mut topics: Vec<TopicProduceResponse> = Vec::new();
    let mut add = |topic: TopicRef, partition: PartitionProduceResponse| {
        let (name, id) = (name_of(&topic), id_of(&topic));
        let at = position_of(
            &mut topics,
            |it| it.name == name && it.topic_id == id,
            || TopicProduceResponse::default().with_name(name.clone()).with_topic_id(id),
        );
        at.partition_responses.push(partition.with_log_append_time_ms(-1));
    };
    for Produced { topic, partition, result } in produced {
        let answer = PartitionProduceResponse::default().with_index(partition);
        let answer = match result {
            Ok(appended) => answer.with_base_offset(appended.base_offset).with_log_start_offset(appended.log_start),
            Err(code) => {
                let message = (version >= 8).then(|| text(code.to_string()));
                answer.with_base_offset(-1).with_error_code(error_code(code)).with_error_message(message)
            }
        };
        add(topic, answer);
    }
    for (topic, partition, code) in refused {
        add(
            topic,
            PartitionProduceResponse::default().with_index(partition).with_base_offset(-1).with_error_code(code),
        );
    }
    ProduceResponse::default().with_responses(topics)
}

/// A fetch response, written by hand so that the batches go out from where they are stored.
fn fetch(version: i16, correlation: i32, fetched: &[Fetched]) -> Outgoing {
    let flexible = version >= 12;
    let mut out = Outgoing::default();
    out.put(&correlation.to_be_bytes());
    if flexible {
        out.put(&[0]);
    }
    out.put(&0_i32.to_be_bytes()); // throttle time
    if version >= 7 {
        out.put(&0_i16.to_be_bytes()); // error of the session
        out.put(&0_i32.to_be_bytes()); // no session: every fetch names all it wants
    }
    let topics = fetched.chunk_by(|a, b| a.topic == b.topic);
    put_count(&mut out, flexible, topics.clone().count());
    for partitions in topics {
        match &partitions[0].topic {
            TopicRef::Id(TopicId(id)) => out.put(&id.to_be_bytes()),
            TopicRef::Name(name) => {
                if flexible {
                    put_varint(&mut out, name.len() + 1);
                } else {
                    out.put(&i16::try_from(name.len()).expect("it came with a length of 16 bits").to_be_bytes());
                }
                out.put(name.as_bytes());
            }
        }
        put_count(&mut out, flexible, partitions.len());
        for Fetched { partition, log_start, log_end, result, .. } in partitions {
            out.put(&partition.to_be_bytes());
            out.put(&result_code(result).to_be_bytes());
            out.put(&log_end.to_be_bytes()); // high watermark
            out.put(&log_end.to_be_bytes()); // last stable offset
            if version >= 5 {
                out.put(&log_start.to_be_bytes());
            }
            if flexible {
                out.put(&[0]); // no aborted transactions: null
            } else {
                out.put(&(-1_i32).to_be_bytes());
            }
            if version >= 11 {
                out.put(&(-1_i32).to_be_bytes()); // no better replica
            }
            let batches = result.as_deref().unwrap_or_default();
            put_count(&mut out, flexible, batches.iter().map(|batch| batch.bytes.len()).sum());
            for stored in batches {
                let prefix = batch::prefix(stored);
                out.put(&prefix);
                out.put_shared(stored.bytes.slice(prefix.len()..));
            }
            if flexible {
                out.put(&[0]);
            }
        }
        if flexible {
            out.put(&[0]);
        }
    }
    if flexible {
        out.put(&[0]);
    }
    out
}

fn put_count(out: &mut Outgoing, flexible: bool, count: usize) {
    if flexible {
        put_varint(out, count + 1);
    } else {
        out.put(&i32::try_from(count).expect("a response holds less than 2 GiB").to_be_bytes());
    }
}

fn put_varint(out: &mut Outgoing, mut value: usize) {
    while value >= 0x80 {
        out.put(&[(value & 0x7f) as u8 | 0x80]);
        value >>= 7;
    }
    out.put(&[value as u8]);
}

fn metadata(
    topics: Vec<(TopicRef, Result<omb_broker::TopicInfo, ErrorCode>)>,
    endpoint: &Endpoint,
) -> MetadataResponse {
    let topic = |(topic, result): (TopicRef, Result<omb_broker::TopicInfo, ErrorCode>)| {
        let mut answer = MetadataResponseTopic::default().with_error_code(result_code(&result));
        answer.name = matches!(topic, TopicRef::Name(_)).then(|| name_of(&topic));
        answer.topic_id = id_of(&topic);
        if let Ok(info) = result {
            answer.name = Some(TopicName(text(info.name)));
            answer.topic_id = Uuid::from_u128(info.id.0);
            // Without leader epochs clients do not ask for the history of leaderships, of which there is none.
            let partition = |index| {
                let partition = MetadataResponsePartition::default().with_partition_index(index).with_leader_id(NODE);
                partition.with_leader_epoch(-1).with_replica_nodes(vec![NODE]).with_isr_nodes(vec![NODE])
            };
            answer.partitions = (0..info.partitions).map(partition).collect();
        }
        answer
    };
    let broker = MetadataResponseBroker::default().with_node_id(NODE).with_host(text(&endpoint.host));
    MetadataResponse::default()
        .with_brokers(vec![broker.with_port(i32::from(endpoint.port))])
        .with_cluster_id(Some(text(&endpoint.cluster)))
        .with_controller_id(NODE)
        .with_topics(topics.into_iter().map(topic).collect())
}

fn created(
    version: i16,
    name: String,
    result: Result<omb_broker::TopicInfo, omb_broker::Refusal>,
) -> CreatableTopicResult {
    let topic = CreatableTopicResult::default().with_name(TopicName(text(name)));
    match result {
        Ok(info) => {
            let configs = (version >= 5).then(Vec::<CreatableTopicConfigs>::new);
            let topic = topic.with_topic_id(Uuid::from_u128(info.id.0)).with_num_partitions(info.partitions);
            topic.with_replication_factor(1).with_configs(configs)
        }
        Err(refusal) => topic.with_error_code(error_code(refusal.code)).with_error_message(Some(text(refusal.text))),
    }
}

fn join_group(version: i16, result: Result<omb_broker::Joined, omb_broker::JoinRefused>) -> JoinGroupResponse {
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

fn offset_fetch(version: i16, groups: Vec<String>, responses: Vec<Response>) -> OffsetFetchResponse {
    let mut response = OffsetFetchResponse::default();
    for (group, answer) in groups.into_iter().zip(responses) {
        let Response::FetchOffsets(offsets) = answer else { unreachable!("offsets were asked for") };
        let none = || Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
        if version < 8 {
            for (topic, index, committed) in offsets {
                let (name, committed) = (TopicName(text(topic)), committed.unwrap_or_else(none));
                let at = position_of(
                    &mut response.topics,
                    |it| it.name == name,
                    || OffsetFetchResponseTopic::default().with_name(name.clone()),
                );
                let partition = OffsetFetchResponsePartition::default().with_partition_index(index);
                at.partitions.push(
                    partition
                        .with_committed_offset(committed.offset)
                        .with_committed_leader_epoch(committed.leader_epoch)
                        .with_metadata(Some(text(committed.metadata))),
                );
            }
            continue;
        }
        let mut found = OffsetFetchResponseGroup::default().with_group_id(GroupId(text(group)));
        for (topic, index, committed) in offsets {
            let (name, committed) = (TopicName(text(topic)), committed.unwrap_or_else(none));
            let at = position_of(
                &mut found.topics,
                |it| it.name == name,
                || OffsetFetchResponseTopics::default().with_name(name.clone()),
            );
            let partition = OffsetFetchResponsePartitions::default().with_partition_index(index);
            at.partitions.push(
                partition
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(text(committed.metadata))),
            );
        }
        response.groups.push(found);
    }
    response
}

fn described_group(version: i16, name: String, result: Result<GroupInfo, ErrorCode>) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(GroupId(text(name)));
    let info = match result {
        Ok(info) => info,
        // Before version 6 a group that is not there is described as dead.
        Err(_) if version < 6 => return described.with_group_state(text("Dead")),
        Err(code) => {
            let described = described.with_group_state(text("Dead")).with_error_code(error_code(code));
            return described.with_error_message(Some(text(code.to_string())));
        }
    };
    let member = |it: omb_broker::MemberInfo| {
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
