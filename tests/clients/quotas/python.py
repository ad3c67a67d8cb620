"""Writes beyond quotas through python-etcd3; see go/quotas."""

import json
import sys

import etcd3
import grpc

port, ca, password_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(password_file, encoding="utf-8") as file:
    password = file.read().strip()
client = etcd3.client(host="127.0.0.1", port=port, ca_cert=ca, user="root", password=password)
met = []
for kind, writes, text in [
    ("keys", ["keys/a", "keys/b"], "keygate: quota of 1 keys under `keys/` is reached"),
    ("bytes", ["bytes/long"], "etcdserver: mvcc: database space exceeded"),
    ("history", ["history/a"] * 3, "etcdserver: mvcc: database space exceeded"),
]:
    refused = None
    for key in writes:
        try:
            client.put(key, "1")
        except grpc.RpcError as error:
            refused = error
    assert refused is not None, kind
    assert (refused.code(), refused.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, text), refused
    trailers = dict(refused.trailing_metadata())
    assert b"google.rpc.QuotaFailure" in trailers["grpc-status-details-bin"], trailers
    assert trailers["grpc-retry-pushback-ms"] == "-1", trailers
    met.append(kind)
print(json.dumps(met))
