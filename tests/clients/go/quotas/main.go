// Writes beyond quotas through etcd's Go client, which knows its errors by their text: what a refusal carries besides
// must not hide it. Prints the kinds that were met.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func main() {
	endpoint := flag.String("endpoint", "", "URL of the server")
	ca := flag.String("cacert", "", "PEM file of the authority that signed the server's certificate")
	passwordFile := flag.String("password-file", "", "file with the password of root")
	flag.Parse()
	met, err := run(*endpoint, *ca, *passwordFile)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(met); err != nil {
		log.Fatal(err)
	}
}

func run(endpoint, ca, passwordFile string) ([]string, error) {
	password, err := os.ReadFile(passwordFile)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{endpoint},
		DialTimeout: 10 * time.Second,
		Username:    "root",
		Password:    strings.TrimSpace(string(password)),
		TLS:         &tls.Config{RootCAs: roots},
		Logger:      zap.NewNop(),
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	// As the quotas are set by the suite: one key, or ten bytes, below each prefix.
	var met []string
	for kind, writes := range map[string][]string{
		"keys":    {"keys/a", "keys/b"},
		"bytes":   {"bytes/long"},
		"history": {"history/a", "history/a", "history/a"},
	} {
		var err error
		for _, key := range writes {
			_, err = client.Put(ctx, key, "1")
		}
		told := status.Convert(err)
		var typed rpctypes.EtcdError
		if errors.As(err, &typed) {
			told = status.New(typed.Code(), typed.Error())
		}
		space := errors.Is(err, rpctypes.ErrNoSpace)
		if told.Code() != codes.ResourceExhausted || space != (kind != "keys") ||
			(kind == "keys" && !strings.Contains(err.Error(), "quota of 1 keys under `keys/` is reached")) {
			return nil, fmt.Errorf("%s: %T %v", kind, err, err)
		}
		met = append(met, kind)
	}
	return met, nil
}
