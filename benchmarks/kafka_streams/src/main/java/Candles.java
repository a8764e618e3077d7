import com.fasterxml.jackson.databind.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.*;

/**
 * The same work in Kafka Streams' Processor API: decode, validate, dedupe, candles 1m to 1d, valid
 * trades on. Stores are in memory with a changelog. Numbers are longs of 10^-8, which is cheaper
 * than any decimal and exact for this workload.
 *
 * Arguments: bootstrap, application id, namespace, guarantee, dedupe (true or false), threads.
 */
public class Candles {
  static final String[] NAMES = {"1m", "5m", "15m", "30m", "1h", "4h", "1d"};
  static final long MINUTE = 60_000_000L, GRACE = 2_000_000L;
  static final long[] SIZES = {
    MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, 60 * MINUTE, 240 * MINUTE, 1440 * MINUTE
  };
  // One candle: open time, o, h, l, c, volume, count, first time and id, last time and id.
  static final int LONGS = 11, RING = 256;

  public static class Trade {
    public String event, exchange, symbol, trade_id, price, amount, side;
    public long trade_time_us, receive_time_us;
  }

  static long units(String text) {
    int point = text.indexOf('.');
    String whole = point < 0 ? text : text.substring(0, point);
    String fraction = point < 0 ? "" : text.substring(point + 1);
    long units = Long.parseLong(whole);
    for (int i = 0; i < 8; i++) units = units * 10 + (i < fraction.length() ? fraction.charAt(i) - '0' : 0);
    return units;
  }

  static void merge(long[] into, long[] c) {
    if (into[6] == 0) {
      System.arraycopy(c, 1, into, 1, LONGS - 1);
      return;
    }
    into[2] = Math.max(into[2], c[2]);
    into[3] = Math.min(into[3], c[3]);
    into[5] += c[5];
    into[6] += c[6];
    if (c[7] < into[7] || (c[7] == into[7] && c[8] < into[8])) {
      into[1] = c[1]; into[7] = c[7]; into[8] = c[8];
    }
    if (c[9] > into[9] || (c[9] == into[9] && c[10] > into[10])) {
      into[4] = c[4]; into[9] = c[9]; into[10] = c[10];
    }
  }

  static byte[] bytes(long[] longs) {
    ByteBuffer buffer = ByteBuffer.allocate(longs.length * 8);
    buffer.asLongBuffer().put(longs);
    return buffer.array();
  }

  static long[] longs(byte[] bytes) {
    long[] found = new long[bytes.length / 8];
    ByteBuffer.wrap(bytes).asLongBuffer().get(found);
    return found;
  }

  static class Kernel implements Processor<String, byte[], String, byte[]> {
    final ObjectReader reader = new ObjectMapper()
        .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false).readerFor(Trade.class);
    final boolean dedupe;
    ProcessorContext<String, byte[]> context;
    KeyValueStore<String, byte[]> minutes, rollups, seen;
    // Open minutes per symbol, so that closing does not search; rebuilt from the store.
    final Map<String, TreeSet<Long>> open = new HashMap<>();

    Kernel(boolean dedupe) { this.dedupe = dedupe; }

    public void init(ProcessorContext<String, byte[]> c) {
      context = c;
      minutes = c.getStateStore("minutes");
      rollups = c.getStateStore("rollups");
      if (dedupe) seen = c.getStateStore("seen");
      try (KeyValueIterator<String, byte[]> all = minutes.all()) {
        while (all.hasNext()) {
          String key = all.next().key;
          int at = key.lastIndexOf('|');
          open.computeIfAbsent(key.substring(0, at), k -> new TreeSet<>())
              .add(Long.parseLong(key.substring(at + 1)));
        }
      }
    }

    public void process(Record<String, byte[]> record) {
      Trade t;
      long price, amount, id;
      try {
        t = reader.readValue(record.value());
        price = units(t.price);
        amount = units(t.amount);
        id = Long.parseLong(t.trade_id);
      } catch (Exception e) {
        return;
      }
      if (price <= 0 || amount <= 0) return;
      if (dedupe) {
        byte[] ring = seen.get(record.key());
        ring = ring == null ? new byte[8 * RING] : ring.clone();
        ByteBuffer ids = ByteBuffer.wrap(ring);
        int slot = (int) (id % RING) * 8;
        if (ids.getLong(slot) == id) return;
        ids.putLong(slot, id);
        seen.put(record.key(), ring);
      }
      context.forward(record, "trades");
      long time = t.trade_time_us, window = time - time % MINUTE;
      String key = record.key() + "|" + window;
      byte[] stored = minutes.get(key);
      long[] candle;
      if (stored == null) {
        candle = new long[LONGS];
        candle[0] = window;
        open.computeIfAbsent(record.key(), k -> new TreeSet<>()).add(window);
      } else candle = longs(stored);
      merge(candle, new long[] {window, price, price, price, price, amount, 1, time, id, time, id});
      minutes.put(key, bytes(candle));
      TreeSet<Long> windows = open.get(record.key());
      while (!windows.isEmpty() && windows.first() + MINUTE + GRACE <= time)
        close(record, windows.pollFirst());
    }

    void close(Record<String, byte[]> record, long window) {
      String key = record.key() + "|" + window;
      long[] part = longs(minutes.delete(key));
      emit(record, 0, part);
      byte[] stored = rollups.get(record.key());
      long[] all = stored == null ? new long[LONGS * SIZES.length] : longs(stored);
      for (int i = 1; i < SIZES.length; i++) {
        long[] up = Arrays.copyOfRange(all, i * LONGS, (i + 1) * LONGS);
        long start = window - window % SIZES[i];
        if (up[6] > 0 && up[0] != start) {
          emit(record, i, up);
          up = new long[LONGS];
        }
        up[0] = start;
        merge(up, part);
        if (window + MINUTE == start + SIZES[i]) {
          emit(record, i, up);
          up = new long[LONGS];
        }
        System.arraycopy(up, 0, all, i * LONGS, LONGS);
      }
      rollups.put(record.key(), bytes(all));
    }

    void emit(Record<String, byte[]> record, int level, long[] c) {
      String json = "{\"timeframe\":\"" + NAMES[level] + "\",\"open_time_us\":" + c[0] + ",\"open\":"
          + c[1] + ",\"high\":" + c[2] + ",\"low\":" + c[3] + ",\"close\":" + c[4] + ",\"volume\":"
          + c[5] + ",\"trade_count\":" + c[6] + "}";
      context.forward(record.withValue(json.getBytes(StandardCharsets.UTF_8)), NAMES[level]);
    }
  }

  public static void main(String[] a) throws Exception {
    String namespace = a[2];
    boolean dedupe = Boolean.parseBoolean(a[4]);
    Properties p = new Properties();
    p.put("bootstrap.servers", a[0]);
    p.put("application.id", a[1]);
    p.put("processing.guarantee", a[3]);
    p.put("num.stream.threads", a[5]);
    p.put("state.dir", System.getProperty("java.io.tmpdir") + "/" + a[1]);
    p.put("auto.offset.reset", "earliest");
    p.put("replication.factor", 1);
    p.put("commit.interval.ms", 500);
    p.put("statestore.cache.max.bytes", 64 << 20);
    p.put("producer.linger.ms", "50");
    p.put("producer.batch.size", 500_000);
    p.put("producer.compression.type", "zstd");
    p.put("max.poll.records", "5000");
    p.put("consumer.max.partition.fetch.bytes", 4 << 20);
    Topology topology = new Topology();
    topology.addSource("in", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(),
        namespace + ".ingest.events.v1");
    topology.addProcessor("kernel", () -> new Kernel(dedupe), "in");
    List<String> stores = new ArrayList<>(List.of("minutes", "rollups"));
    if (dedupe) stores.add("seen");
    for (String store : stores)
      topology.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(store),
          Serdes.String(), Serdes.ByteArray()).withCachingEnabled(), "kernel");
    topology.addSink("trades", namespace + ".market.trades.v1", Serdes.String().serializer(),
        Serdes.ByteArray().serializer(), "kernel");
    for (String name : NAMES)
      topology.addSink(name, namespace + ".market.candles." + name + ".v1",
          Serdes.String().serializer(), Serdes.ByteArray().serializer(), "kernel");
    KafkaStreams streams = new KafkaStreams(topology, p);
    streams.setStateListener((now, before) -> {
      if (now == KafkaStreams.State.RUNNING) System.out.println("READY");
    });
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }
}
