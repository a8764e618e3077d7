// Print every 1m candle as it comes, and each correction of an earlier one.
//
//   npm ci
//   ALPHA_PULSE_KAFKA=127.0.0.1:19092 npm start

import kafkajs from "kafkajs";
import { decompress } from "fzstd";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;

// Batches are compressed with zstd, which kafkajs leaves to its user.
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: () => {
    throw new Error("this example only reads");
  },
  decompress: async (bytes) => Buffer.from(decompress(bytes)),
});

const namespace = process.env.ALPHA_PULSE_NAMESPACE ?? "";
const kafka = new Kafka({
  clientId: "newest-candles",
  brokers: (process.env.ALPHA_PULSE_KAFKA ?? "127.0.0.1:19092").split(","),
  logLevel: logLevel.ERROR,
  // Over TLS with a password:
  // ssl: { ca: [fs.readFileSync("ca.pem")] },
  // sasl: { mechanism: "scram-sha-512", username: "reader", password: process.env.PASSWORD },
});
// A group of its own, so that it reads everything. kafkajs reads committed records by default.
const consumer = kafka.consumer({ groupId: `${namespace}.newest-candles-${process.pid}` });

const newest = new Map(); // identity -> revision
await consumer.connect();
await consumer.subscribe({
  topic: (namespace && `${namespace}.`) + "market.candles.1m.v1",
  fromBeginning: true,
});
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ message }) => {
    // From log epoch 512 on a revision passes 2^53, where JavaScript's numbers lose digits: BigInt.
    const text = message.value.toString();
    const candle = JSON.parse(text);
    const revision = BigInt(/"revision":(\d+)/.exec(text)[1]);
    const { exchange, symbol, timeframe, open_time_us } = candle;
    const identity = `${exchange}:${symbol}:${timeframe}:${open_time_us}`;
    if (newest.has(identity) && newest.get(identity) >= revision) return;
    newest.set(identity, revision);
    console.log([exchange, symbol, open_time_us, revision, candle.close, candle.coverage].join("\t"));
  },
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await consumer.disconnect();
    process.exit(0);
  });
}
