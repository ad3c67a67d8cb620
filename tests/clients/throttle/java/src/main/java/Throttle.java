import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;

/** Offers puts at an even pace through jetcd to a server that lets fewer through; see go/throttle. */
public final class Throttle {
  public static void main(String[] arguments) throws Exception {
    int calls = 300;
    AtomicInteger done = new AtomicInteger();
    AtomicInteger refused = new AtomicInteger();
    List<CompletableFuture<Void>> open = new ArrayList<>();
    ByteSequence key = ByteSequence.from("throttled", StandardCharsets.UTF_8);
    ByteSequence value = ByteSequence.from("java", StandardCharsets.UTF_8);
    try (Client client = Client.builder().endpoints("http://127.0.0.1:" + arguments[0]).build()) {
      for (int call = 0; call < calls; call++) {
        open.add(client.getKVClient().put(key, value).handle((answer, error) -> {
          if (error == null) {
            done.incrementAndGet();
          } else if (error.toString().contains("too many requests")) {
            refused.incrementAndGet();
          } else {
            throw new IllegalStateException(error);
          }
          return null;
        }));
        Thread.sleep(10);
      }
      CompletableFuture.allOf(open.toArray(CompletableFuture[]::new)).get();
    }
    System.out.printf("{\"offered\": %d, \"done\": %d, \"refused\": %d}%n", calls, done.get(), refused.get());
  }
}
