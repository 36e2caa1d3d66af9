//! Topics, their configuration, and the cluster: Metadata, CreateTopics, DeleteTopics, CreatePartitions, DescribeConfigs,
//! DescribeCluster, ApiVersions.

use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
        CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest,
        DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest, MetadataResponse,
        TopicName,
        api_versions_response::ApiVersion,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        delete_topics_response::DeletableTopicResult,
        describe_cluster_response::DescribeClusterBroker,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};
use omb_broker::{ConfigValue, ErrorCode, NewTopic, Refusal, Request, TopicId, TopicInfo, TopicRef};
use uuid::Uuid;

use super::{Decoded, Decoding, Endpoint, Incoming, NODE, Rest, SERVED, id_of, name_of, text};
use crate::error::{code, error_code, result_code};

impl Decoding {
    pub(super) fn api_versions(&mut self) -> Decoded<Incoming> {
        let _: ApiVersionsRequest = self.body()?;
        Ok(self.answer(&api_versions(self.version)))
    }

    pub(super) fn delete_topics(&mut self) -> Decoded<Incoming> {
        let it: DeleteTopicsRequest = self.body()?;
        let named = it.topic_names.into_iter().map(|name| TopicRef::Name(name.to_string()));
        let either = it.topics.into_iter().map(|topic| match topic.name {
            Some(name) => TopicRef::Name(name.to_string()),
            None => TopicRef::Id(TopicId(topic.topic_id.as_u128())),
        });
        Ok(self.ask(Request::DeleteTopics { topics: named.chain(either).collect() }))
    }

    pub(super) fn create_partitions(&mut self) -> Decoded<Incoming> {
        let it: CreatePartitionsRequest = self.body()?;
        let topics = it.topics.into_iter().map(|topic| (topic.name.to_string(), topic.count)).collect();
        Ok(self.ask(Request::CreatePartitions { topics, validate_only: it.validate_only }))
    }

    pub(super) fn describe_cluster(&mut self, endpoint: &Endpoint) -> Decoded<Incoming> {
        let _: DescribeClusterRequest = self.body()?;
        Ok(self.answer(&describe_cluster(endpoint)))
    }

    pub(super) fn metadata(&mut self) -> Decoded<Incoming> {
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

    pub(super) fn create_topics(&mut self) -> Decoded<Incoming> {
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

    pub(super) fn describe_configs(&mut self) -> Decoded<Incoming> {
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
}

pub(super) fn created(version: i16, topics: Vec<(String, Result<TopicInfo, Refusal>)>) -> CreateTopicsResponse {
    let topic = |(name, result): (String, Result<_, _>)| creatable(version, name, result);
    CreateTopicsResponse::default().with_topics(topics.into_iter().map(topic).collect())
}

pub(super) fn deleted(topics: Vec<(TopicRef, Result<TopicInfo, ErrorCode>)>) -> DeleteTopicsResponse {
    let topic = |(topic, result): (TopicRef, Result<_, ErrorCode>)| {
        let mut deleted = DeletableTopicResult::default().with_error_code(result_code(&result));
        deleted.name = matches!(topic, TopicRef::Name(_)).then(|| name_of(&topic));
        deleted.topic_id = id_of(&topic);
        if let Ok(info) = result {
            let info: TopicInfo = info;
            deleted.name = Some(TopicName(text(info.name)));
            deleted.topic_id = Uuid::from_u128(info.id.0);
        }
        deleted
    };
    DeleteTopicsResponse::default().with_responses(topics.into_iter().map(topic).collect())
}

pub(super) fn grown(topics: Vec<(String, Result<(), Refusal>)>) -> CreatePartitionsResponse {
    let topic = |(name, result): (String, Result<(), Refusal>)| {
        let grown = CreatePartitionsTopicResult::default().with_name(TopicName(text(name)));
        match result {
            Ok(()) => grown,
            Err(refusal) => {
                grown.with_error_code(error_code(refusal.code)).with_error_message(Some(text(refusal.text)))
            }
        }
    };
    CreatePartitionsResponse::default().with_results(topics.into_iter().map(topic).collect())
}

pub(super) fn described(
    topics: Vec<(String, Result<Vec<ConfigValue>, ErrorCode>)>,
    keys: Vec<Option<Vec<StrBytes>>>,
    others: Vec<DescribeConfigsResult>,
) -> DescribeConfigsResponse {
    let topics = topics.into_iter().zip(keys).map(|((name, result), keys)| {
        let mut described = DescribeConfigsResult::default().with_resource_type(2).with_resource_name(text(name));
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
    DescribeConfigsResponse::default().with_results(topics.chain(others).collect())
}

/// The protocol's number for where a configuration value comes from: the topic, or a default.
fn config_source(default: bool) -> i8 {
    if default { 5 } else { 1 }
}

pub(super) fn metadata(topics: Vec<(TopicRef, Result<TopicInfo, ErrorCode>)>, endpoint: &Endpoint) -> MetadataResponse {
    let topic = |(topic, result): (TopicRef, Result<TopicInfo, ErrorCode>)| {
        let mut answer = MetadataResponseTopic::default().with_error_code(result_code(&result));
        answer.name = matches!(topic, TopicRef::Name(_)).then(|| name_of(&topic));
        answer.topic_id = id_of(&topic);
        if let Ok(info) = result {
            answer.name = Some(TopicName(text(info.name)));
            answer.topic_id = Uuid::from_u128(info.id.0);
            // Without leader epochs clients do not request the history of leaderships, which does not exist.
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

fn creatable(version: i16, name: String, result: Result<TopicInfo, Refusal>) -> CreatableTopicResult {
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

pub(super) fn api_versions(version: i16) -> ApiVersionsResponse {
    let api = |&(api, first, last): &(ApiKey, i16, i16)| {
        // librdkafka assumes that a broker which does not list the oldest Produce cannot accept compressed batches
        // either; Kafka 4 lists it for that reason, and rejects it all the same.
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
