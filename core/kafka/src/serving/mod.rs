//! The Kafka protocol in front of the broker: frames to [`Request`]s, [`Response`]s to frames.
//!
//! Versions are those of librdkafka 2.12 and of the Java clients up to 4.1 (which begin at the versions of KIP-896).
//! Requests that need no broker (supported versions, the coordinator) are answered here.

mod fetch;
mod groups;
mod offsets;
mod produce;
mod topics;

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, BrokerId, HeartbeatResponse, RequestHeader, TopicName, describe_configs_response::DescribeConfigsResult,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use omb_broker::{Acks, Committer, Request, Response, TopicId, TopicRef};
use uuid::Uuid;

use crate::{
    error::{code, result_code},
    outgoing::Outgoing,
    shape,
};

/// The only broker.
const NODE: BrokerId = BrokerId(1);

/// Records in one response, in bytes, except for a single batch that is larger.
const RESPONSE_MAX: u32 = 1 << 30;

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
pub enum Malformed {
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
pub struct Endpoint {
    /// The address at which clients find this broker.
    pub host: String,
    pub port: u16,
    pub client: SocketAddr,
    pub cluster: String,
}

/// A request that is understood.
pub enum Incoming {
    /// Answered without the broker.
    Answered(Outgoing),
    /// To be answered by the broker: all of the requests, then [`Ticket::answer`].
    Ask(Vec<Request>, Ticket),
}

/// What is needed to answer a request.
#[derive(Debug)]
pub struct Ticket {
    api: ApiKey,
    version: i16,
    correlation: i32,
    /// Whether the client expects no answer.
    pub silent: bool,
    rest: Rest,
}

/// What the answer repeats of the request, beyond what the broker's response contains.
#[derive(Debug)]
enum Rest {
    None,
    /// Batches that were rejected before they reached the broker.
    Refused(Vec<(TopicRef, i32, i16)>),
    /// Class and name of the protocol.
    Protocol(Option<(String, String)>),
    /// Groups, in the order of the requests.
    Groups(Vec<String>),
    /// Which keys of each topic are requested, and the broker's own resources, already answered.
    Configs(Vec<Option<Vec<StrBytes>>>, Vec<DescribeConfigsResult>),
    /// Whether only groups in some states, or of some types, are requested.
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
///
/// ```
/// use bytes::{BufMut as _, Bytes, BytesMut};
/// use omb_broker::{Request, Response};
/// use omb_kafka::serving::{Endpoint, Incoming, read};
///
/// let client = "10.0.0.1:5000".parse().expect("an address");
/// let endpoint = Endpoint { host: "localhost".into(), port: 9092, client, cluster: "omb".into() };
///
/// // InitProducerId (22) of version 0, correlation id 5, no client id; then no transactional id and its timeout.
/// let mut frame = BytesMut::new();
/// (frame.put_i16(22), frame.put_i16(0), frame.put_i32(5), frame.put_i16(-1));
/// (frame.put_i16(-1), frame.put_i32(60_000));
/// let Ok(Incoming::Ask(requests, ticket)) = read(frame.freeze(), &endpoint) else { panic!("the broker answers it") };
/// assert_eq!(requests, [Request::InitProducerId { current: None }]);
///
/// // What the broker responds becomes the answer: correlation id, throttle time, error, producer id and epoch.
/// let mut answer = ticket.answer(vec![Response::InitProducerId(Ok((9, 0)))], &endpoint);
/// assert_eq!(answer.pieces()[0][..], [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0]);
///
/// assert!(read(Bytes::from_static(b"GET / HTTP/1.1"), &endpoint).is_err());
/// ```
pub fn read(mut frame: Bytes, endpoint: &Endpoint) -> Result<Incoming, Malformed> {
    let (&[api_high, api_low, version_high, version_low, c0, c1, c2, c3], _) =
        frame.split_first_chunk().ok_or(Malformed::Short)?;
    let number = i16::from_be_bytes([api_high, api_low]);
    let version = i16::from_be_bytes([version_high, version_low]);
    let correlation = i32::from_be_bytes([c0, c1, c2, c3]);
    let api = ApiKey::try_from(number).map_err(|()| Malformed::UnknownApi(number))?;
    let &(_, first, last) = SERVED.iter().find(|(served, ..)| *served == api).ok_or(Malformed::UnknownApi(number))?;
    if !(first..=last).contains(&version) {
        if api == ApiKey::ApiVersions {
            // A newer client learns the supported versions in version 0, and asks again (KIP-511).
            let mut response = topics::api_versions(0);
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
            ApiKey::Heartbeat => self.heartbeat()?,
            ApiKey::LeaveGroup => self.leave_group()?,
            ApiKey::DescribeGroups => self.describe_groups()?,
            ApiKey::ListGroups => self.list_groups()?,
            ApiKey::DeleteGroups => self.delete_groups()?,
            ApiKey::OffsetDelete => self.offset_delete()?,
            ApiKey::ApiVersions => self.api_versions()?,
            ApiKey::CreateTopics => self.create_topics()?,
            ApiKey::DeleteTopics => self.delete_topics()?,
            ApiKey::CreatePartitions => self.create_partitions()?,
            ApiKey::DescribeConfigs => self.describe_configs()?,
            ApiKey::InitProducerId => self.init_producer_id()?,
            ApiKey::DescribeCluster => self.describe_cluster(endpoint)?,
            other => unreachable!("{other:?} is not served"),
        })
    }
}

fn committer(member_id: StrBytes, static_id: Option<StrBytes>, generation: i32) -> Committer {
    Committer { member_id: member_id.to_string(), static_id: optional(static_id), generation }
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
    pub fn answer(self, mut responses: Vec<Response>, endpoint: &Endpoint) -> Outgoing {
        if let Rest::Groups(groups) = self.rest {
            let response = offsets::fetched(self.version, groups, responses);
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
            (Response::Fetch(fetched), _) => fetch::fetched(version, correlation, &fetched),
            (Response::Produce(produced), Rest::Refused(refused)) => {
                encode!(produce::produced(version, produced, refused))
            }
            (Response::ListOffsets(listed), _) => encode!(offsets::listed(listed)),
            (Response::Metadata(topics), _) => encode!(topics::metadata(topics, endpoint)),
            (Response::CreateTopics(topics), _) => encode!(topics::created(version, topics)),
            (Response::DeleteTopics(topics), _) => encode!(topics::deleted(topics)),
            (Response::CreatePartitions(topics), _) => encode!(topics::grown(topics)),
            (Response::DescribeConfigs(topics), Rest::Configs(keys, others)) => {
                encode!(topics::described(topics, keys, others))
            }
            (Response::InitProducerId(result), _) => encode!(produce::identified(result)),
            (Response::JoinGroup(result), _) => encode!(groups::joined(version, result)),
            (Response::SyncGroup(result), Rest::Protocol(protocol)) => {
                encode!(groups::synced(version, result, protocol))
            }
            (Response::Heartbeat(result), _) => {
                encode!(HeartbeatResponse::default().with_error_code(result_code(&result)))
            }
            (Response::LeaveGroup(members), _) => encode!(groups::left(version, members)),
            (Response::CommitOffsets(offsets), _) => encode!(offsets::committed(offsets)),
            (Response::DeleteOffsets(result), _) => encode!(offsets::deleted(result)),
            (Response::ListGroups(groups), Rest::Filters(states, types)) => {
                encode!(groups::listed(version, groups, &states, &types))
            }
            (Response::DescribeGroups(groups), _) => encode!(groups::described(version, groups)),
            (Response::DeleteGroups(groups), _) => encode!(groups::deleted(groups)),
            (response, rest) => unreachable!("{api:?} is not answered by {response:?} and {rest:?}"),
        }
    }
}

/// The element for which `is` holds, created and appended if there is none. Searches from the end: equal ones follow
/// each other.
fn position_of<T>(all: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = all.iter().rposition(is).unwrap_or(all.len());
    if at == all.len() {
        all.push(new());
    }
    &mut all[at]
}
