//! Offsets: ListOffsets, OffsetCommit, OffsetFetch, OffsetDelete.

use kafka_protocol::messages::{
    GroupId, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    },
};
use omb_broker::{
    Committed, ErrorCode, ListedOffset, OffsetCommit, OffsetSpec, PartitionResults, Request, Response, TopicRef,
};

use super::{Decoded, Decoding, Incoming, Rest, committer, name_of, optional, position_of, text};
use crate::error::result_code;

impl Decoding {
    pub(super) fn offset_delete(&mut self) -> Decoded<Incoming> {
        let it: OffsetDeleteRequest = self.body()?;
        let partition = |topic: &TopicName, index| (topic.to_string(), index);
        let partitions = it
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|it| partition(&topic.name, it.partition_index)));
        let partitions = partitions.collect();
        Ok(self.ask(Request::DeleteOffsets { group: it.group_id.to_string(), partitions }))
    }

    pub(super) fn list_offsets(&mut self) -> Decoded<Incoming> {
        let it: ListOffsetsRequest = self.body()?;
        let spec = |timestamp| match timestamp {
            -1 => OffsetSpec::Latest,
            // -4 asks for the first offset on local disk; there is no other tier here.
            -2 | -4 => OffsetSpec::Earliest,
            -3 => OffsetSpec::MaxTimestamp,
            // -5 requests what a remote tier holds: nothing, as for a time beyond all records.
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

    pub(super) fn offset_commit(&mut self) -> Decoded<Incoming> {
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

    pub(super) fn offset_fetch(&mut self) -> Decoded<Incoming> {
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
}

pub(super) fn listed(listed: Vec<(TopicRef, i32, Result<ListedOffset, ErrorCode>)>) -> ListOffsetsResponse {
    let mut topics: Vec<ListOffsetsTopicResponse> = Vec::new();
    for (topic, index, result) in listed {
        let mut partition =
            ListOffsetsPartitionResponse::default().with_partition_index(index).with_error_code(result_code(&result));
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
    ListOffsetsResponse::default().with_topics(topics)
}

pub(super) fn committed(offsets: PartitionResults) -> OffsetCommitResponse {
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
    OffsetCommitResponse::default().with_topics(topics)
}

pub(super) fn deleted(result: Result<PartitionResults, ErrorCode>) -> OffsetDeleteResponse {
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
    response
}

pub(super) fn fetched(version: i16, groups: Vec<String>, responses: Vec<Response>) -> OffsetFetchResponse {
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
