package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var scenarios = []scenario{
	{"key-value", keyValue},
	{"range options", rangeOptions},
	{"transactions", transactions},
	{"watch over broken links", watchResumes},
	{"watch options", watchOptions},
	{"watch of compacted history", watchCompacted},
	{"lease with keepalive", leaseKeptAlive},
	{"lease expires", leaseExpires},
	{"auth", auth},
	{"mutex", mutex},
	{"election", election},
	{"stm", stm},
}

func keyValue(ctx context.Context, s *session) (string, error) {
	const keys = 200
	for i := range keys {
		if _, err := s.client.Put(ctx, fmt.Sprintf("kv/%03d", i), strconv.Itoa(i)); err != nil {
			return "", err
		}
	}
	all, err := s.client.Get(ctx, "kv/", clientv3.WithPrefix())
	if err != nil {
		return "", err
	}
	if all.Count != keys || string(all.Kvs[17].Value) != "17" {
		return "", fmt.Errorf("read back %d of %d", all.Count, keys)
	}
	old, err := s.client.Put(ctx, "kv/000", "new", clientv3.WithPrevKV())
	if err != nil || string(old.PrevKv.Value) != "0" {
		return "", fmt.Errorf("previous value: %v, %w", old, err)
	}
	past, err := s.client.Get(ctx, "kv/000", clientv3.WithRev(old.Header.Revision-1))
	if err != nil || string(past.Kvs[0].Value) != "0" {
		return "", fmt.Errorf("past value: %v, %w", past, err)
	}
	gone, err := s.client.Delete(ctx, "kv/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil || gone.Deleted != keys || len(gone.PrevKvs) != keys {
		return "", fmt.Errorf("deleted: %v, %w", gone, err)
	}
	if _, err := s.client.Get(ctx, ""); !errors.Is(err, rpctypes.ErrEmptyKey) {
		return "", fmt.Errorf("empty key: %w", err)
	}
	if _, err := s.client.Get(ctx, "x", clientv3.WithRev(1<<40)); !errors.Is(err, rpctypes.ErrFutureRev) {
		return "", fmt.Errorf("future revision: %w", err)
	}
	return fmt.Sprintf("%d keys", keys), nil
}

func rangeOptions(ctx context.Context, s *session) (string, error) {
	for _, pair := range [][2]string{{"ro/b", "1"}, {"ro/a", "3"}, {"ro/c", "2"}} {
		if _, err := s.client.Put(ctx, pair[0], pair[1]); err != nil {
			return "", err
		}
	}
	checks := []struct {
		want    string
		options []clientv3.OpOption
	}{
		{"ro/a ro/b ro/c", nil},
		{"ro/c ro/b ro/a", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}},
		{"ro/b ro/c ro/a", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}},
		{"ro/b ro/a ro/c", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)}},
		{"ro/a ro/b", []clientv3.OpOption{clientv3.WithLimit(2)}},
		{"ro/a ro/b ro/c", []clientv3.OpOption{clientv3.WithKeysOnly()}},
		{"ro/a ro/b ro/c", []clientv3.OpOption{clientv3.WithSerializable()}},
	}
	for i, check := range checks {
		got, err := s.client.Get(ctx, "ro/", append(check.options, clientv3.WithPrefix())...)
		if err != nil {
			return "", err
		}
		keys := ""
		for _, kv := range got.Kvs {
			keys += " " + string(kv.Key)
		}
		if keys != " "+check.want {
			return "", fmt.Errorf("check %d: %s instead of %s", i, keys, check.want)
		}
	}
	return fmt.Sprintf("%d checks", len(checks)), nil
}

func transactions(ctx context.Context, s *session) (string, error) {
	const rounds = 100
	if _, err := s.client.Put(ctx, "txn/n", "0"); err != nil {
		return "", err
	}
	for i := range rounds {
		now, next := strconv.Itoa(i), strconv.Itoa(i+1)
		nested := clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Version("txn/n"), ">", 0)},
			[]clientv3.Op{clientv3.OpPut("txn/seen", now), clientv3.OpGet("txn/n")},
			nil,
		)
		done, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.Value("txn/n"), "=", now)).
			Then(clientv3.OpPut("txn/n", next), nested).
			Else(clientv3.OpGet("txn/n")).
			Commit()
		if err != nil {
			return "", err
		}
		if !done.Succeeded || len(done.Responses) != 2 {
			return "", fmt.Errorf("round %d: %v", i, done)
		}
	}
	lost, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("txn/n"), "=", 0)).Else(clientv3.OpGet("txn/n")).Commit()
	if err != nil || lost.Succeeded || string(lost.Responses[0].GetResponseRange().Kvs[0].Value) != strconv.Itoa(rounds) {
		return "", fmt.Errorf("else branch: %v, %w", lost, err)
	}
	_, err = s.client.Txn(ctx).Then(clientv3.OpPut("txn/d", "1"), clientv3.OpPut("txn/d", "2")).Commit()
	if !errors.Is(err, rpctypes.ErrDuplicateKey) {
		return "", fmt.Errorf("duplicate key: %w", err)
	}
	return fmt.Sprintf("%d commits", rounds), nil
}

// The client resumes a watch by itself: every event exactly once, in order, whatever broke.
func watchResumes(ctx context.Context, s *session) (string, error) {
	const events, breaks = 300, 6
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := s.client.Watch(ctx, "resume/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if first, ok := <-watch; !ok || !first.Created {
		return "", errors.New("the watch was not created")
	}
	before := s.relay.broken
	var failed error
	go func() {
		// Writes go round the relay's breaks by trying again; a put may then be seen twice, so the
		// value says which it is and duplicates of one put are told apart by a compare.
		for i := range events {
			if i%(events/breaks) == events/breaks/2 {
				s.relay.breakAll()
			}
			if err := putOnce(ctx, s.client, fmt.Sprintf("resume/%d", i), strconv.Itoa(i)); err != nil {
				failed = err
				cancel()
				return
			}
		}
	}()
	next := 0
	for next < events {
		response, ok := <-watch
		if !ok || response.Err() != nil {
			return "", fmt.Errorf("the watch ended at event %d: %v, writer: %v", next, response.Err(), failed)
		}
		for _, event := range response.Events {
			if string(event.Kv.Value) != strconv.Itoa(next) {
				return "", fmt.Errorf("event %d is %s", next, event.Kv.Value)
			}
			next++
		}
	}
	return fmt.Sprintf("%d events, %d connections broken", events, s.relay.broken-before), nil
}

// putOnce creates a key and goes on trying until it is there.
func putOnce(ctx context.Context, client *clientv3.Client, key, value string) error {
	for {
		_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, value)).Commit()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func watchOptions(ctx context.Context, s *session) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start, err := s.client.Put(ctx, "wo/a", "1")
	if err != nil {
		return "", err
	}
	deletes := s.client.Watch(ctx, "wo/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithPrevKV(), clientv3.WithRev(start.Header.Revision))
	past := s.client.Watch(ctx, "wo/", clientv3.WithPrefix(), clientv3.WithRev(start.Header.Revision), clientv3.WithFragment())
	if _, err := s.client.Put(ctx, "wo/a", "2"); err != nil {
		return "", err
	}
	if _, err := s.client.Delete(ctx, "wo/a"); err != nil {
		return "", err
	}
	seen := 0
	for seen < 3 {
		response := <-past
		if response.Err() != nil {
			return "", response.Err()
		}
		seen += len(response.Events)
	}
	deleted := <-deletes
	if len(deleted.Events) != 1 || !isDelete(deleted.Events[0]) || string(deleted.Events[0].PrevKv.Value) != "2" {
		return "", fmt.Errorf("filtered: %v", deleted)
	}
	if err := s.client.RequestProgress(ctx); err != nil {
		return "", err
	}
	progress := <-past
	if !progress.IsProgressNotify() || progress.Header.Revision < start.Header.Revision+2 {
		return "", fmt.Errorf("progress: %v", progress)
	}
	return "past, filter, previous value, progress", nil
}

func isDelete(event *clientv3.Event) bool { return event.Type == clientv3.EventTypeDelete }

func watchCompacted(ctx context.Context, s *session) (string, error) {
	var last int64
	for range 3 {
		put, err := s.client.Put(ctx, "wc", "x")
		if err != nil {
			return "", err
		}
		last = put.Header.Revision
	}
	if _, err := s.client.Compact(ctx, last); err != nil {
		return "", err
	}
	response := <-s.client.Watch(ctx, "wc", clientv3.WithRev(last-1))
	if !errors.Is(response.Err(), rpctypes.ErrCompacted) || response.CompactRevision != last {
		return "", fmt.Errorf("%v, compacted at %d", response.Err(), response.CompactRevision)
	}
	if _, err := s.client.Get(ctx, "wc", clientv3.WithRev(last-1)); !errors.Is(err, rpctypes.ErrCompacted) {
		return "", fmt.Errorf("read: %w", err)
	}
	return fmt.Sprintf("refused below %d", last), nil
}

func leaseKeptAlive(ctx context.Context, s *session) (string, error) {
	grant, err := s.client.Grant(ctx, 2)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive, err := s.client.KeepAlive(ctx, grant.ID)
	if err != nil {
		return "", err
	}
	if _, err := s.client.Put(ctx, "lease/kept", "x", clientv3.WithLease(grant.ID)); err != nil {
		return "", err
	}
	// Three answers lie well beyond the two seconds that the lease would live alone.
	renewals := 0
	for renewals < 5 {
		answer, ok := <-alive
		if !ok || answer.TTL <= 0 {
			return "", fmt.Errorf("kept alive %d times, then %v", renewals, answer)
		}
		renewals++
	}
	left, err := s.client.TimeToLive(ctx, grant.ID, clientv3.WithAttachedKeys())
	if err != nil || left.TTL < 0 || len(left.Keys) != 1 {
		return "", fmt.Errorf("time to live: %v, %w", left, err)
	}
	if _, err := s.client.Revoke(ctx, grant.ID); err != nil {
		return "", err
	}
	gone, err := s.client.Get(ctx, "lease/kept")
	if err != nil || gone.Count != 0 {
		return "", fmt.Errorf("after revoke: %v, %w", gone, err)
	}
	if _, err := s.client.Revoke(ctx, grant.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return "", fmt.Errorf("second revoke: %w", err)
	}
	return fmt.Sprintf("%d renewals", renewals), nil
}

func leaseExpires(ctx context.Context, s *session) (string, error) {
	watch := s.client.Watch(ctx, "lease/short", clientv3.WithFilterPut())
	began := time.Now()
	grant, err := s.client.Grant(ctx, 2)
	if err != nil {
		return "", err
	}
	if _, err := s.client.Put(ctx, "lease/short", "x", clientv3.WithLease(grant.ID)); err != nil {
		return "", err
	}
	response := <-watch
	lived := time.Since(began)
	if len(response.Events) != 1 || !isDelete(response.Events[0]) || lived < 2*time.Second || lived > 10*time.Second {
		return "", fmt.Errorf("%v after %v", response, lived)
	}
	return fmt.Sprintf("after %d ms", lived.Milliseconds()), nil
}

// auth runs with auth on and off alike: users and roles can be prepared in both states, and what
// they may do is looked at when it is on.
func auth(ctx context.Context, s *session) (string, error) {
	checks := 0
	steps := []func() error{
		func() error { _, err := s.client.RoleAdd(ctx, "go-role"); return err },
		func() error {
			_, err := s.client.RoleGrantPermission(ctx, "go-role", "go/", "go0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := s.client.UserAdd(ctx, "gopher", "burrow"); return err },
		func() error { _, err := s.client.UserGrantRole(ctx, "gopher", "go-role"); return err },
		func() error {
			user, err := s.client.UserGet(ctx, "gopher")
			if err == nil && (len(user.Roles) != 1 || user.Roles[0] != "go-role") {
				err = fmt.Errorf("roles: %v", user.Roles)
			}
			return err
		},
		func() error {
			role, err := s.client.RoleGet(ctx, "go-role")
			if err == nil && (len(role.Perm) != 1 || string(role.Perm[0].RangeEnd) != "go0") {
				err = fmt.Errorf("permissions: %v", role.Perm)
			}
			return err
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return "", fmt.Errorf("step %d: %w", i, err)
		}
		checks++
	}
	if s.password != "" {
		if err := asGopher(ctx, s); err != nil {
			return "", err
		}
		checks += 4
	}
	if _, err := s.client.UserDelete(ctx, "gopher"); err != nil {
		return "", err
	}
	_, err := s.client.RoleDelete(ctx, "go-role")
	return fmt.Sprintf("%d checks", checks), err
}

func asGopher(ctx context.Context, s *session) error {
	config := s.config
	config.Username, config.Password = "gopher"+s.tenant, "burrow"
	gopher, err := clientv3.New(config)
	if err != nil {
		return err
	}
	defer gopher.Close()
	if _, err := gopher.Put(ctx, "go/x", "1"); err != nil {
		return fmt.Errorf("what the role allows: %w", err)
	}
	if _, err := gopher.Put(ctx, "elsewhere", "1"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("beyond the role: %w", err)
	}
	denied := <-gopher.Watch(ctx, "elsewhere")
	if denied.Err() == nil {
		return errors.New("a watch beyond the role was let in")
	}
	config.Password = "wrong"
	if _, err := clientv3.New(config); err == nil {
		return errors.New("a wrong password was let in")
	}
	return nil
}

func mutex(ctx context.Context, s *session) (string, error) {
	const workers, rounds = 5, 10
	counter, inside := 0, 0
	var group sync.WaitGroup
	failures := make(chan error, workers)
	for range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			failures <- func() error {
				holder, err := concurrency.NewSession(s.client, concurrency.WithTTL(10))
				if err != nil {
					return err
				}
				defer holder.Close()
				lock := concurrency.NewMutex(holder, "mutex/")
				for range rounds {
					if err := lock.Lock(ctx); err != nil {
						return err
					}
					inside++
					if inside != 1 {
						return fmt.Errorf("%d are inside", inside)
					}
					counter++
					inside--
					if err := lock.Unlock(ctx); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return "", err
		}
	}
	if counter != workers*rounds {
		return "", fmt.Errorf("counted %d", counter)
	}
	return fmt.Sprintf("%d turns of %d workers", counter, workers), nil
}

func election(ctx context.Context, s *session) (string, error) {
	const candidates = 3
	observer, err := concurrency.NewSession(s.client)
	if err != nil {
		return "", err
	}
	defer observer.Close()
	observe := concurrency.NewElection(observer, "election/").Observe(ctx)
	for i := range candidates {
		candidate, err := concurrency.NewSession(s.client, concurrency.WithTTL(10))
		if err != nil {
			return "", err
		}
		name := fmt.Sprintf("candidate-%d", i)
		term := concurrency.NewElection(candidate, "election/")
		if err := term.Campaign(ctx, name); err != nil {
			return "", err
		}
		leader, err := term.Leader(ctx)
		if err != nil || string(leader.Kvs[0].Value) != name {
			return "", fmt.Errorf("leader: %v, %w", leader, err)
		}
		if seen := <-observe; len(seen.Kvs) == 0 || string(seen.Kvs[0].Value) != name {
			return "", fmt.Errorf("observed %v instead of %s", seen, name)
		}
		if err := term.Resign(ctx); err != nil {
			return "", err
		}
		candidate.Close()
	}
	return fmt.Sprintf("%d terms", candidates), nil
}

func stm(ctx context.Context, s *session) (string, error) {
	const accounts, transfers, workers = 5, 20, 4
	for i := range accounts {
		if _, err := s.client.Put(ctx, fmt.Sprintf("stm/%d", i), "100"); err != nil {
			return "", err
		}
	}
	var group sync.WaitGroup
	failures := make(chan error, workers)
	for worker := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range transfers {
				from, to := fmt.Sprintf("stm/%d", (worker+i)%accounts), fmt.Sprintf("stm/%d", (worker+2*i+1)%accounts)
				_, err := concurrency.NewSTM(s.client, func(stm concurrency.STM) error {
					if from == to {
						return nil
					}
					rich, _ := strconv.Atoi(stm.Get(from))
					poor, _ := strconv.Atoi(stm.Get(to))
					stm.Put(from, strconv.Itoa(rich-1))
					stm.Put(to, strconv.Itoa(poor+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	group.Wait()
	close(failures)
	if err := <-failures; err != nil {
		return "", err
	}
	all, err := s.client.Get(ctx, "stm/", clientv3.WithPrefix())
	if err != nil {
		return "", err
	}
	sum := 0
	for _, kv := range all.Kvs {
		amount, _ := strconv.Atoi(string(kv.Value))
		sum += amount
	}
	if sum != accounts*100 {
		return "", fmt.Errorf("money appeared or vanished: %d", sum)
	}
	return fmt.Sprintf("%d transfers", workers*transfers), nil
}
