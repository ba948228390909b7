# One image with the four programs: standalone, command-api, query-api, projector. The command says which; alone it is standalone.

# The workspace without its code: manifests, and an empty file where each has a target. It changes only when a manifest does.
FROM rust:1.95-slim-bookworm AS manifests
WORKDIR /src
COPY . .
RUN mkdir /manifests \
 && find . \( -name Cargo.toml -o -name Cargo.lock -o -name rust-toolchain.toml -o -path './.cargo/*' \) -type f \
        -exec cp --parents -t /manifests {} + \
 && find . \( -path './*/src/lib.rs' -o -path './*/src/main.rs' -o -path './*/src/bin/*.rs' -o -path './*/tests/*/main.rs' \
        -o -path './*/benches/*.rs' -o -path './*/build.rs' \) \
        -exec sh -c 'for file; do mkdir -p "/manifests/${file%/*}"; echo "fn main() { }" >"/manifests/$file"; done' sh {} +

# So the dependencies, which take most of the time, are a layer of their own.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
ENV PROGRAMS="-p standalone -p command-api -p query-api -p projector"
COPY --from=manifests /manifests ./
RUN cargo build --release --locked $PROGRAMS
COPY . .
# Copied files keep their old times, and cargo would take the empty ones, which are newer, for them.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
 && cargo build --release --locked $PROGRAMS
# Line numbers for backtraces stay; compressed, they are a third.
WORKDIR /src/target/release
RUN objcopy --compress-debug-sections standalone && objcopy --compress-debug-sections command-api \
 && objcopy --compress-debug-sections query-api && objcopy --compress-debug-sections projector

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --user-group --uid 10001 --no-create-home --shell /usr/sbin/nologin chat \
 && install -d -o chat -g chat /data
COPY --from=build \
    /src/target/release/standalone /src/target/release/command-api /src/target/release/query-api /src/target/release/projector \
    /usr/local/bin/
USER chat
# The same for every program, so that one probe fits all.
ENV CHAT_LISTEN=0.0.0.0:8080 CHAT_METRICS_LISTEN=0.0.0.0:9090 CHAT_DATA_DIR=/data
EXPOSE 8080 9090
HEALTHCHECK --interval=3s --timeout=3s --start-period=60s --retries=3 CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:9090/readyz"]
CMD ["standalone"]
