// Drives a server through etcd's official Go client, as programs in the field do: key-value,
// transactions, watches that survive broken connections, leases, auth, and the recipes of its
// concurrency package. Prints a line per scenario and exits 1 at the first broken promise.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

type scenario struct {
	name string
	run  func(context.Context, *session) (string, error)
}

// session is what a scenario may use.
type session struct {
	client   *clientv3.Client
	relay    *relay
	config   clientv3.Config
	password string
	// tenant is "@" and the name of the user's tenant, or empty.
	tenant string
}

func main() {
	endpoint := flag.String("endpoint", "", "URL of the server")
	ca := flag.String("cacert", "", "PEM file of the authority that signed the server's certificate")
	user := flag.String("user", "", "name, or name@tenant, when auth is on")
	passwordFile := flag.String("password-file", "", "file with the user's password")
	tokenTTL := flag.Duration("token-ttl", 0, "how long the server's tokens last: then only what survives their end is tried")
	tokenKey := flag.String("token-key", "", "PEM file with the Ed25519 key that the server's tokens are signed with")
	flag.Parse()
	if err := run(*endpoint, *ca, *user, *passwordFile, *tokenTTL, *tokenKey); err != nil {
		log.Fatal(err)
	}
}

func run(endpoint, ca, user, passwordFile string, tokenTTL time.Duration, tokenKey string) error {
	target, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	// All connections pass a relay of our own, which can break them.
	relay, err := startRelay(target.Host)
	if err != nil {
		return err
	}
	defer relay.close()
	config := clientv3.Config{
		Endpoints:   []string{target.Scheme + "://" + relay.address()},
		DialTimeout: 10 * time.Second,
		Username:    user,
		Logger:      zap.NewNop(),
	}
	if passwordFile != "" {
		text, err := os.ReadFile(passwordFile)
		if err != nil {
			return err
		}
		config.Password = string(trimmed(text))
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		config.TLS = &tls.Config{RootCAs: roots}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	s := &session{client: client, relay: relay, config: config, password: config.Password}
	if at := strings.LastIndex(user, "@"); at >= 0 {
		s.tenant = user[at:]
	}
	scenarios := scenarios
	if tokenTTL != 0 {
		scenarios = tokenScenarios(tokenKey, tokenTTL)
	}
	for _, scenario := range scenarios {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		began := time.Now()
		told, err := scenario.run(ctx, s)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", scenario.name, err)
		}
		fmt.Printf("%-28s %s, %d ms\n", scenario.name, told, time.Since(began).Milliseconds())
	}
	fmt.Printf("%d scenarios passed\n", len(scenarios))
	return nil
}

func trimmed(text []byte) []byte {
	for len(text) > 0 && text[len(text)-1] <= ' ' {
		text = text[:len(text)-1]
	}
	return text
}
