// Offers puts at an even pace to a server that lets fewer through, as a program would that takes no heed. Prints how
// many calls it made, how many were done and how many were refused, and fails when a refusal is not the typed error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func main() {
	endpoint := flag.String("endpoint", "", "URL of the server")
	calls := flag.Int("calls", 300, "puts to offer")
	pause := flag.Duration("pause", 10*time.Millisecond, "between two of them")
	flag.Parse()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, Logger: zap.NewNop()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var done, refused atomic.Int64
	var waiting sync.WaitGroup
	for range *calls {
		waiting.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			switch _, err := client.Put(ctx, "throttled", "go"); {
			case err == nil:
				done.Add(1)
			case errors.Is(err, rpctypes.ErrTooManyRequests):
				refused.Add(1)
			default:
				log.Fatalf("not what was expected: %v", err)
			}
		})
		time.Sleep(*pause)
	}
	waiting.Wait()
	told := map[string]int64{"offered": int64(*calls), "done": done.Load(), "refused": refused.Load()}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
}
