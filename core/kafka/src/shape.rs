//! Whether a request has the shape of its version, checked before anything is allocated for it.
//!
//! The decoder of `kafka-protocol` allocates as many elements as an array claims to have, so a few hostile bytes could
//! request terabytes and end the process. This walk over the bytes checks every length first: a request that passes
//! holds every element it claims, and not more of them than [`ELEMENTS_MAX`].

use kafka_protocol::messages::ApiKey;

/// Elements of all arrays of one request together. The largest honest request, a fetch of all partitions, has far fewer.
const ELEMENTS_MAX: usize = 1_000_000;

/// A field, and the versions that have it: from, to.
struct Field(i16, i16, Kind);

enum Kind {
    /// This many bytes.
    Fixed(usize),
    /// A string: its length in 2 bytes, or as a variable integer in flexible versions.
    Text,
    /// Bytes or records: the length in 4 bytes, or as a variable integer in flexible versions.
    Blob,
    /// An array of structures.
    Structs(&'static [Field]),
    /// An array of strings.
    Texts,
    /// An array of numbers of 4 bytes.
    Ints,
}

use Kind::{Blob, Fixed, Ints, Structs, Text, Texts};

const ALL: i16 = i16::MAX;

const PRODUCE: &[Field] = &[
    Field(3, ALL, Text),
    Field(0, ALL, Fixed(2 + 4)),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, 12, Text),
            Field(13, ALL, Fixed(16)),
            Field(0, ALL, Structs(&[Field(0, ALL, Fixed(4)), Field(0, ALL, Blob)])),
        ]),
    ),
];

const FETCH: &[Field] = &[
    Field(0, 14, Fixed(4)),
    Field(0, ALL, Fixed(4 + 4 + 4 + 1)),
    Field(7, ALL, Fixed(4 + 4)),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, 12, Text),
            Field(13, ALL, Fixed(16)),
            Field(
                0,
                ALL,
                Structs(&[
                    Field(0, ALL, Fixed(4)),
                    Field(9, ALL, Fixed(4)),
                    Field(0, ALL, Fixed(8)),
                    Field(12, ALL, Fixed(4)),
                    Field(5, ALL, Fixed(8)),
                    Field(0, ALL, Fixed(4)),
                ]),
            ),
        ]),
    ),
    Field(7, ALL, Structs(&[Field(7, 12, Text), Field(13, ALL, Fixed(16)), Field(7, ALL, Ints)])),
    Field(11, ALL, Text),
];

const LIST_OFFSETS: &[Field] = &[
    Field(0, ALL, Fixed(4)),
    Field(2, ALL, Fixed(1)),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, Fixed(4)), Field(4, ALL, Fixed(4)), Field(0, ALL, Fixed(8))])),
        ]),
    ),
    Field(10, ALL, Fixed(4)),
];

const METADATA: &[Field] = &[
    Field(0, ALL, Structs(&[Field(10, ALL, Fixed(16)), Field(0, ALL, Text)])),
    Field(4, ALL, Fixed(1)),
    Field(8, 10, Fixed(1)),
    Field(8, ALL, Fixed(1)),
];

const OFFSET_COMMIT: &[Field] = &[
    Field(0, ALL, Text),
    Field(1, ALL, Fixed(4)),
    Field(1, ALL, Text),
    Field(7, ALL, Text),
    Field(2, 4, Fixed(8)),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, Fixed(4 + 8)), Field(6, ALL, Fixed(4)), Field(0, ALL, Text)])),
        ]),
    ),
];

const OFFSET_FETCH: &[Field] = &[
    Field(0, 7, Text),
    Field(0, 7, Structs(&[Field(0, ALL, Text), Field(0, ALL, Ints)])),
    Field(
        8,
        ALL,
        Structs(&[
            Field(8, ALL, Text),
            Field(9, ALL, Text),
            Field(9, ALL, Fixed(4)),
            Field(8, ALL, Structs(&[Field(8, ALL, Text), Field(8, ALL, Ints)])),
        ]),
    ),
    Field(7, ALL, Fixed(1)),
];

const FIND_COORDINATOR: &[Field] = &[Field(0, 3, Text), Field(1, ALL, Fixed(1)), Field(4, ALL, Texts)];

const JOIN_GROUP: &[Field] = &[
    Field(0, ALL, Text),
    Field(0, ALL, Fixed(4)),
    Field(1, ALL, Fixed(4)),
    Field(0, ALL, Text),
    Field(5, ALL, Text),
    Field(0, ALL, Text),
    Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Blob)])),
    Field(8, ALL, Text),
];

const SYNC_GROUP: &[Field] = &[
    Field(0, ALL, Text),
    Field(0, ALL, Fixed(4)),
    Field(0, ALL, Text),
    Field(3, ALL, Text),
    Field(5, ALL, Text),
    Field(5, ALL, Text),
    Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Blob)])),
];

const HEARTBEAT: &[Field] = &[Field(0, ALL, Text), Field(0, ALL, Fixed(4)), Field(0, ALL, Text), Field(3, ALL, Text)];

const LEAVE_GROUP: &[Field] = &[
    Field(0, ALL, Text),
    Field(0, 2, Text),
    Field(3, ALL, Structs(&[Field(3, ALL, Text), Field(3, ALL, Text), Field(5, ALL, Text)])),
];

const DESCRIBE_GROUPS: &[Field] = &[Field(0, ALL, Texts), Field(3, ALL, Fixed(1))];

const LIST_GROUPS: &[Field] = &[Field(4, ALL, Texts), Field(5, ALL, Texts)];

const API_VERSIONS: &[Field] = &[Field(3, ALL, Text), Field(3, ALL, Text)];

const CREATE_TOPICS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, Fixed(4 + 2)),
            Field(0, ALL, Structs(&[Field(0, ALL, Fixed(4)), Field(0, ALL, Ints)])),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, Fixed(4)),
    Field(1, ALL, Fixed(1)),
];

const DELETE_TOPICS: &[Field] = &[
    Field(6, ALL, Structs(&[Field(6, ALL, Text), Field(6, ALL, Fixed(16))])),
    Field(0, 5, Texts),
    Field(0, ALL, Fixed(4)),
];

const INIT_PRODUCER_ID: &[Field] = &[Field(0, ALL, Text), Field(0, ALL, Fixed(4)), Field(3, ALL, Fixed(8 + 2))];

const CREATE_PARTITIONS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[Field(0, ALL, Text), Field(0, ALL, Fixed(4)), Field(0, ALL, Structs(&[Field(0, ALL, Ints)]))]),
    ),
    Field(0, ALL, Fixed(4 + 1)),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    Field(0, ALL, Structs(&[Field(0, ALL, Fixed(1)), Field(0, ALL, Text), Field(0, ALL, Texts)])),
    Field(1, ALL, Fixed(1)),
    Field(3, ALL, Fixed(1)),
];

const DELETE_GROUPS: &[Field] = &[Field(0, ALL, Texts)];

const OFFSET_DELETE: &[Field] = &[
    Field(0, ALL, Text),
    Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Structs(&[Field(0, ALL, Fixed(4))]))])),
];

const DESCRIBE_CLUSTER: &[Field] = &[Field(0, ALL, Fixed(1)), Field(1, ALL, Fixed(1)), Field(2, ALL, Fixed(1))];

fn fields(api: ApiKey) -> Option<&'static [Field]> {
    Some(match api {
        ApiKey::Produce => PRODUCE,
        ApiKey::Fetch => FETCH,
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::DescribeGroups => DESCRIBE_GROUPS,
        ApiKey::ListGroups => LIST_GROUPS,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::CreatePartitions => CREATE_PARTITIONS,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        ApiKey::DeleteGroups => DELETE_GROUPS,
        ApiKey::OffsetDelete => OFFSET_DELETE,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER,
        _ => return None,
    })
}

/// Whether `body`, which follows the request's header, is a whole request of this version, and how many bytes follow
/// it.
pub(crate) fn check(api: ApiKey, version: i16, body: &[u8]) -> Option<usize> {
    let flexible = api.request_header_version(version) >= 2;
    let mut walk = Walk { rest: body, version, flexible, elements: 0 };
    walk.structure(fields(api)?)?;
    Some(walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

/// `None` ends the walk: the bytes are malformed.
impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Option<()> {
        for Field(from, to, kind) in fields {
            if (*from..=*to).contains(&self.version) {
                self.field(kind)?;
            }
        }
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.skip(size)?;
            }
        }
        Some(())
    }

    fn field(&mut self, kind: &Kind) -> Option<()> {
        match kind {
            Fixed(size) => self.skip(*size),
            Text => {
                let length = if self.flexible { self.compact()? } else { i64::from(self.i16()?) };
                self.skip_length(length)
            }
            Blob => {
                let length = self.length()?;
                self.skip_length(length)
            }
            Structs(fields) => self.elements(|walk| walk.structure(fields)),
            Texts => self.elements(|walk| walk.field(&Text)),
            Ints => self.elements(|walk| walk.skip(4)),
        }
    }

    fn elements(&mut self, element: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        let count = usize::try_from(self.length()?.max(0)).ok()?;
        self.elements = self.elements.checked_add(count).filter(|&all| all <= ELEMENTS_MAX)?;
        (0..count).try_for_each(|_| element(self))
    }

    fn length(&mut self) -> Option<i64> {
        if self.flexible { self.compact() } else { self.i32().map(i64::from) }
    }

    fn compact(&mut self) -> Option<i64> {
        self.varint().map(|length| length as i64 - 1)
    }

    fn skip_length(&mut self, length: i64) -> Option<()> {
        match length {
            -1 => Some(()),
            _ => self.skip(usize::try_from(length).ok()?),
        }
    }

    fn skip(&mut self, size: usize) -> Option<()> {
        self.rest = self.rest.get(size..)?;
        Some(())
    }

    fn i16(&mut self) -> Option<i16> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(i16::from_be_bytes(*bytes))
    }

    fn i32(&mut self) -> Option<i32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(i32::from_be_bytes(*bytes))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::{
        messages::{
            CreateTopicsRequest, FetchRequest, JoinGroupRequest, LeaveGroupRequest, ListOffsetsRequest,
            MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, SyncGroupRequest, TopicName,
            create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
            fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
            join_group_request::JoinGroupRequestProtocol,
            leave_group_request::MemberIdentity,
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
            metadata_request::MetadataRequestTopic,
            offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
            offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
            produce_request::{PartitionProduceData, TopicProduceData},
            sync_group_request::SyncGroupRequestAssignment,
        },
        protocol::{Encodable, StrBytes},
    };

    use super::*;

    fn text() -> StrBytes {
        StrBytes::from_static_str("text")
    }

    /// The walk accepts what the encoder writes, in each version, to its last byte, and not if the last byte is
    /// missing.
    #[track_caller]
    fn walks<R: Encodable>(api: ApiKey, versions: std::ops::RangeInclusive<i16>, request: impl Fn(i16) -> R) {
        for version in versions {
            let mut bytes = BytesMut::new();
            request(version).encode(&mut bytes, version).expect("a request of this version");
            assert_eq!(check(api, version, &bytes), Some(0), "{api:?} of version {version}");
            assert_eq!(check(api, version, &bytes[..bytes.len() - 1]), None, "{api:?} of version {version}, cut");
        }
    }

    #[test]
    fn knows_the_shape_of_every_version() {
        let name = || TopicName(text());
        walks(ApiKey::Produce, 3..=13, |version| {
            let partition = PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
            let topic = TopicProduceData::default().with_partition_data(vec![partition.clone(), partition]);
            let topic = if version < 13 { topic.with_name(name()) } else { topic };
            ProduceRequest::default().with_topic_data(vec![topic.clone(), topic])
        });
        walks(ApiKey::Fetch, 4..=17, |version| {
            let topic = FetchTopic::default().with_partitions(vec![FetchPartition::default(); 2]);
            let mut request = FetchRequest::default().with_topics(vec![topic; 2]);
            if version >= 7 {
                let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
                request = request.with_forgotten_topics_data(vec![forgotten]);
            }
            if version >= 11 { request.with_rack_id(text()) } else { request }
        });
        walks(ApiKey::ListOffsets, 1..=10, |_| {
            let topic = ListOffsetsTopic::default().with_name(name());
            let topic = topic.with_partitions(vec![ListOffsetsPartition::default(); 2]);
            ListOffsetsRequest::default().with_topics(vec![topic; 2])
        });
        walks(ApiKey::Metadata, 0..=13, |_| {
            let topics = vec![MetadataRequestTopic::default().with_name(Some(name())); 3];
            MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true)
        });
        walks(ApiKey::OffsetCommit, 2..=9, |_| {
            let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text()));
            let topic = OffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![partition; 2]);
            OffsetCommitRequest::default().with_member_id(text()).with_topics(vec![topic; 2])
        });
        walks(ApiKey::OffsetFetch, 1..=9, |version| {
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default().with_name(name()).with_partition_indexes(vec![1, 2]);
                return OffsetFetchRequest::default().with_topics(Some(vec![topic; 2]));
            }
            let topic = OffsetFetchRequestTopics::default().with_name(name()).with_partition_indexes(vec![1, 2]);
            let group = OffsetFetchRequestGroup::default().with_topics(Some(vec![topic; 2]));
            OffsetFetchRequest::default().with_groups(vec![group; 2])
        });
        walks(ApiKey::JoinGroup, 0..=9, |version| {
            let protocol =
                JoinGroupRequestProtocol::default().with_name(text()).with_metadata(Bytes::from_static(b"m"));
            let request = JoinGroupRequest::default().with_protocols(vec![protocol; 2]).with_member_id(text());
            if version >= 5 { request.with_group_instance_id(Some(text())) } else { request }
        });
        walks(ApiKey::SyncGroup, 0..=5, |version| {
            let share = SyncGroupRequestAssignment::default().with_assignment(Bytes::from_static(b"share"));
            let request = SyncGroupRequest::default().with_assignments(vec![share; 2]);
            if version >= 5 {
                request.with_protocol_type(Some(text())).with_protocol_name(Some(text()))
            } else {
                request
            }
        });
        walks(ApiKey::LeaveGroup, 0..=5, |version| {
            let request = LeaveGroupRequest::default();
            if version < 3 {
                request.with_member_id(text())
            } else {
                request.with_members(vec![MemberIdentity::default(); 2])
            }
        });
        walks(ApiKey::CreateTopics, 2..=7, |_| {
            let replicas = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()]);
            let config = CreatableTopicConfig::default().with_name(text()).with_value(Some(text()));
            let topic = CreatableTopic::default().with_name(name()).with_assignments(vec![replicas; 2]);
            CreateTopicsRequest::default().with_topics(vec![topic.with_configs(vec![config; 2]); 2])
        });
    }

    /// The rest are walked with nothing in their arrays, as the encoder writes them by default.
    #[test]
    fn knows_the_smaller_ones_too() {
        use kafka_protocol::messages as m;
        walks(ApiKey::FindCoordinator, 0..=5, |version| {
            let request = m::FindCoordinatorRequest::default();
            if version < 4 { request.with_key(text()) } else { request.with_coordinator_keys(vec![text(), text()]) }
        });
        walks(ApiKey::Heartbeat, 0..=4, |_| m::HeartbeatRequest::default().with_member_id(text()));
        walks(ApiKey::DescribeGroups, 0..=6, |_| {
            m::DescribeGroupsRequest::default().with_groups(vec![m::GroupId(text())])
        });
        walks(ApiKey::ListGroups, 4..=5, |_| m::ListGroupsRequest::default().with_states_filter(vec![text(); 2]));
        walks(ApiKey::ApiVersions, 3..=4, |_| m::ApiVersionsRequest::default().with_client_software_name(text()));
        walks(ApiKey::DeleteTopics, 1..=6, |version| match version {
            ..6 => m::DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text()); 2]),
            _ => m::DeleteTopicsRequest::default().with_topics(vec![Default::default(); 2]),
        });
        walks(ApiKey::InitProducerId, 0..=5, |_| m::InitProducerIdRequest::default());
        walks(ApiKey::CreatePartitions, 0..=3, |_| {
            m::CreatePartitionsRequest::default().with_topics(vec![Default::default(); 2])
        });
        walks(ApiKey::DescribeConfigs, 1..=4, |_| {
            m::DescribeConfigsRequest::default().with_resources(vec![Default::default(); 2])
        });
        walks(ApiKey::DeleteGroups, 0..=2, |_| {
            m::DeleteGroupsRequest::default().with_groups_names(vec![m::GroupId(text())])
        });
        walks(ApiKey::OffsetDelete, 0..=0, |_| {
            m::OffsetDeleteRequest::default().with_topics(vec![Default::default(); 2])
        });
        walks(ApiKey::DescribeCluster, 0..=2, |_| m::DescribeClusterRequest::default());
    }

    #[test]
    fn refuses_more_elements_than_there_are() {
        assert_eq!(check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()), None);
        // In flexible versions: 5 bytes that mean four thousand million.
        assert_eq!(check(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]), None);
        let many = [&2_000_000_i32.to_be_bytes()[..], &[0; 4_000_000]].concat();
        assert_eq!(check(ApiKey::DescribeGroups, 0, &many), None);
    }
}
