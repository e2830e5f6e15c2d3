"""Appends two records and reads them back, with nothing but stubs generated from proto/. See the README.

    python3 deploy/python/first_message.py [HOST:PORT] [TOPIC]
"""

import sys

import grpc
from holdfast.v1 import fetch_pb2, fetch_pb2_grpc, common_pb2, produce_pb2, produce_pb2_grpc

broker = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7070"
topic = sys.argv[2] if len(sys.argv) > 2 else "greetings"

# Any broker will do: it passes requests on to the partition's leader.
with grpc.insecure_channel(broker) as channel:
    records = [common_pb2.Record(key=b"who", value=word) for word in (b"hello", b"from python")]
    appended = produce_pb2_grpc.ProduceServiceStub(channel).Append(
        produce_pb2.AppendRequest(topic=topic, partition=0, records=records), timeout=10
    )
    print(f"acknowledged: offsets {appended.base_offset} to {appended.last_offset}")

    fetched = fetch_pb2_grpc.FetchServiceStub(channel).Fetch(
        fetch_pb2.FetchRequest(
            topic=topic,
            partition=0,
            offset=appended.base_offset,
            max_wait_ms=1000,
            format=fetch_pb2.RECORD_FORMAT_RECORDS,
        ),
        timeout=10,
    )
    for record in fetched.records:
        print(f"{record.offset}: {record.key.decode()} = {record.value.decode()}")
