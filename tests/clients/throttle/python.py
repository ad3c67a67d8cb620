"""Offers puts at an even pace through python-etcd3 to a server that lets fewer through; see go/throttle."""

import json
import sys
import time

import etcd3
import grpc

port, calls = int(sys.argv[1]), 300
client = etcd3.client(port=port)
done = refused = 0
for _ in range(calls):
    try:
        client.put("throttled", "python")
        done += 1
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        refused += 1
    time.sleep(0.01)
print(json.dumps({"offered": calls, "done": done, "refused": refused}))
