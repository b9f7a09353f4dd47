# The three programs with the default build of ONNX Runtime, for processors:
#   docker build -t mpnet .
#   docker run --rm -v "$PWD:/work" mpnet pretrain-mpnet --train-dir text --checkpoint-dir checkpoints …
FROM rust:1-trixie AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bins

FROM debian:trixie-slim
# pip fetches ONNX Runtime, now and when another build is asked for.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/pretrain-mpnet /source/target/release/convert-to-hf \
    /source/target/release/mpnet /usr/local/bin/
ENV MPNET_CACHE=/var/cache/mpnet
RUN mpnet runtime install && chmod -R a+rwX "$MPNET_CACHE"
WORKDIR /work
CMD ["mpnet", "doctor"]
