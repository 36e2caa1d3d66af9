//! Whether a request has the shape that its version says, found out before anything is allocated for it.
//!
//! The decoder of `kafka-protocol` makes room for as many elements as an array claims to have, so a few hostile
//! bytes could ask for terabytes and end the process. This walk over the bytes finds every length first: what
//! passes holds every element it claims, and not more of them than [`ELEMENTS_MAX`].

use kafka_protocol::messages::ApiKey;

/// Elements of all arrays of one request together. The largest honest request, a fetch of all partitions, has far fewer.
const ELEMENTS_MAX: usize = 1_000_000;

/// A field, and the versions that have it: from, to.
struct Field(i16, i16, Kind);

enum Kind {
    /// So many bytes.
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

/// Whether `body`, what follows the request's header, is a whole request of this version, and how many bytes follow it.
pub(super) fn check(api: ApiKey, version: i16, body: &[u8]) -> Option<usize> {
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

/// `None` ends the walk: the bytes are not what they should be.
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
