package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// tokenScenarios are for a server whose tokens do not last.
func tokenScenarios(keyFile string, ttl time.Duration) []scenario {
	again := scenario{"login again, over expiries", func(ctx context.Context, s *session) (string, error) {
		return overExpiries(ctx, s.config, s.config)
	}}
	if keyFile == "" {
		return []scenario{again}
	}
	return []scenario{again, {"other tokens, over expiries", func(ctx context.Context, s *session) (string, error) {
		tokens, err := mintWith(keyFile, s.config.Username, ttl)
		if err != nil {
			return "", err
		}
		shown := s.config
		shown.Username, shown.Password = "", ""
		shown.DialOptions = []grpc.DialOption{grpc.WithPerRPCCredentials(tokens)}
		return overExpiries(ctx, shown, s.config)
	}}}
}

// overExpiries keeps a watch and a lease through several ends of the token that they began with, while
// another client writes. login says how their clients show who they are.
func overExpiries(ctx context.Context, login, writer clientv3.Config) (string, error) {
	const expiries, perSecond = 4, 20
	// Keepalives come every five seconds, so that they do not keep a simple token of three seconds alive.
	const leaseSeconds = 15
	put, err := clientv3.New(writer)
	if err != nil {
		return "", err
	}
	defer put.Close()
	var opened streams
	login.DialOptions = append([]grpc.DialOption{grpc.WithChainStreamInterceptor(opened.count)}, login.DialOptions...)
	// A client each: the keepalive's requests would keep the watch's token alive.
	watcher, err := clientv3.New(login)
	if err != nil {
		return "", err
	}
	defer watcher.Close()
	keeper, err := clientv3.New(login)
	if err != nil {
		return "", err
	}
	defer keeper.Close()

	watch := watcher.Watch(ctx, "expiry/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if first, ok := <-watch; !ok || !first.Created {
		return "", fmt.Errorf("the watch was not created: %w", first.Err())
	}
	lease, err := keeper.Grant(ctx, leaseSeconds)
	if err != nil {
		return "", err
	}
	if _, err := put.Put(ctx, "expiry-lease", "x", clientv3.WithLease(lease.ID)); err != nil {
		return "", err
	}
	alive, err := keeper.KeepAlive(ctx, lease.ID)
	if err != nil {
		return "", err
	}

	began := time.Now()
	pause := time.NewTicker(time.Second / perSecond)
	defer pause.Stop()
	sent, seen, renewals := 0, 0, 0
	done := func() bool {
		enough := opened.of("Watch") > expiries && opened.of("LeaseKeepAlive") > expiries
		return enough && time.Since(began) > leaseSeconds*time.Second*3/2
	}
	for !done() || seen < sent {
		tick := pause.C
		if done() {
			tick = nil
		}
		select {
		case response, ok := <-watch:
			if !ok || response.Err() != nil {
				return "", fmt.Errorf("the watch ended at event %d, on stream %d: %w", seen, opened.of("Watch"), response.Err())
			}
			for _, event := range response.Events {
				if string(event.Kv.Value) != strconv.Itoa(seen) {
					return "", fmt.Errorf("event %d is %s", seen, event.Kv.Value)
				}
				seen++
			}
		case answer, ok := <-alive:
			if !ok || answer.TTL <= 0 {
				return "", fmt.Errorf("kept alive %d times, on stream %d, then %v", renewals, opened.of("LeaseKeepAlive"), answer)
			}
			renewals++
		case <-tick:
			if _, err := put.Put(ctx, fmt.Sprintf("expiry/%d", sent), strconv.Itoa(sent)); err != nil {
				return "", fmt.Errorf("put %d: %w", sent, err)
			}
			sent++
		case <-ctx.Done():
			return "", fmt.Errorf("%d of %d events, %d watch and %d keepalive streams: %w", seen, sent, opened.of("Watch"), opened.of("LeaseKeepAlive"), ctx.Err())
		}
	}
	// Nothing comes twice: what stands behind the last event is the next one.
	if _, err := put.Put(ctx, "expiry/last", "last"); err != nil {
		return "", err
	}
	last, ok := <-watch
	if !ok || len(last.Events) != 1 || string(last.Events[0].Kv.Value) != "last" {
		return "", fmt.Errorf("behind the last event: %v", last)
	}
	left, err := put.Get(ctx, "expiry-lease")
	if err != nil || left.Count != 1 {
		return "", fmt.Errorf("the key of the lease after %v: %v, %w", time.Since(began), left, err)
	}
	if renewals < 3 {
		return "", fmt.Errorf("only %d renewals", renewals)
	}
	for _, clean := range []string{"expiry/", "expiry-lease"} {
		if _, err := put.Delete(ctx, clean, clientv3.WithPrefix()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d events on %d streams, %d renewals on %d", seen, opened.of("Watch"), renewals, opened.of("LeaseKeepAlive")), nil
}

// streams counts those that clients opened, by the last part of the method's name.
type streams struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (s *streams) count(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	s.mutex.Lock()
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[desc.StreamName]++
	s.mutex.Unlock()
	return open(ctx, desc, conn, method, options...)
}

func (s *streams) of(name string) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.counts[name]
}

// minted shows tokens that a program gets elsewhere, say from a login service, and gets anew before they
// end. The client's own field Token is for one that lasts: it is never replaced.
type minted struct {
	key   ed25519.PrivateKey
	user  string
	ttl   time.Duration
	mutex sync.Mutex
	token string
	ends  time.Time
}

func mintWith(keyFile, user string, ttl time.Duration) (*minted, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", keyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key")
	}
	return &minted{key: key, user: user, ttl: ttl}, nil
}

func (m *minted) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	// So long a request may be on its way, on a machine that does much else.
	if time.Until(m.ends) < 2*time.Second {
		m.ends = time.Now().Add(m.ttl).Truncate(time.Second)
		claims, err := json.Marshal(map[string]any{"username": m.user, "exp": m.ends.Unix()})
		if err != nil {
			return nil, err
		}
		encode := base64.RawURLEncoding.EncodeToString
		text := encode([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." + encode(claims)
		m.token = text + "." + encode(ed25519.Sign(m.key, []byte(text)))
	}
	return map[string]string{"token": m.token}, nil
}

func (m *minted) RequireTransportSecurity() bool { return false }
