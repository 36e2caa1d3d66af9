//! Produce, and the ids of producers.

use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};
use omb_broker::{Acks, ErrorCode, ProducePartition, Produced, Request, TopicRef};

use super::{Decoded, Decoding, Incoming, Rest, id_of, millis, name_of, position_of, text, topic_ref};
use crate::{
    batch,
    error::{code, error_code, result_code},
};

impl Decoding {
    pub(super) fn produce(&mut self) -> Decoded<Incoming> {
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

    pub(super) fn init_producer_id(&mut self) -> Decoded<Incoming> {
        let it: InitProducerIdRequest = self.body()?;
        if it.transactional_id.is_some() {
            // Transactions are not supported; a producer that requests them should stop, not retry.
            let refused = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
            return Ok(self.answer(&refused.with_error_code(code::INVALID_REQUEST)));
        }
        let current = (it.producer_id.0 >= 0).then_some((it.producer_id.0, it.producer_epoch));
        Ok(self.ask(Request::InitProducerId { current }))
    }
}

pub(super) fn identified(result: Result<(i64, i16), ErrorCode>) -> InitProducerIdResponse {
    let (id, epoch) = result.unwrap_or((-1, -1));
    let response = InitProducerIdResponse::default().with_producer_id(ProducerId(id));
    response.with_producer_epoch(epoch).with_error_code(result_code(&result))
}

pub(super) fn produced(version: i16, produced: Vec<Produced>, refused: Vec<(TopicRef, i32, i16)>) -> ProduceResponse {
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
