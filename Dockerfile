# Builds the server and leaves nothing of the build behind.
FROM node:22-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src src
COPY workers workers
RUN npm run build && npm prune --omit=dev --ignore-scripts

FROM node:22-bookworm-slim
ENV NODE_ENV=production CHANDLERY_CONFIG=/etc/chandlery/chandlery.yaml
WORKDIR /app
COPY --from=build /build/package.json ./
COPY --from=build /build/node_modules node_modules
COPY --from=build /build/dist dist
# The embedded stores live below the working directory of the server.
RUN install -d -o node -g node /var/lib/chandlery
WORKDIR /var/lib/chandlery
VOLUME /var/lib/chandlery
USER node
EXPOSE 8080
# The server ends its responses on SIGTERM; as the only process of the container it gets it directly.
ENTRYPOINT ["node", "/app/dist/src/main.js"]
CMD ["serve", "--host", "0.0.0.0"]
