// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/1.1 load: keep-alive requests of GET, one under way on each connection.
 *
 *   http serve PORT [CPU]                               answer 200 with 1 KB until killed; prints "ready" when listening
 *   http load  HOST PORT PATH CONNECTIONS SECONDS [CPU] many requests
 *
 * The client prints one JSON line: {"n":…,"rate":…,"p50_us":…,"p99_us":…,"other":…}; `other` are answers that are no 200.
 * Bodies have a content-length, which is all this reads of an answer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

#define MAX_FDS 4096
#define BODY 1024

static char request[1024], answer[BODY + 256];
static int request_len, answer_len;

static void watch(int poll, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (fd >= MAX_FDS || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static int serve(int port)
{
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int listener = socket(AF_INET6, SOCK_STREAM, 0), poll = epoll_create1(0), on = 1;
	struct epoll_event ready[64];
	static char in[65536];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 1024))
		die("listen");
	watch(poll, listener);
	answer_len = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", BODY);
	memset(answer + answer_len, 'x', BODY);
	answer_len += BODY;
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(poll, ready, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = ready[i].data.fd;
			ssize_t got;

			if (fd == listener) {
				fd = accept(listener, NULL, NULL);
				if (fd >= 0)
					watch(poll, fd);
				continue;
			}
			got = read(fd, in, sizeof(in)); // one request, whole: clients wait for the answer
			if (got < 4 || memcmp(in + got - 4, "\r\n\r\n", 4) || write(fd, answer, answer_len) != answer_len)
				close(fd);
		}
	}
}

struct connection {
	uint64_t began;
	int got;
	char in[8192];
};

static struct connection connections[MAX_FDS];

static void ask(int fd)
{
	connections[fd].got = 0;
	connections[fd].began = now_ns();
	if (write(fd, request, request_len) != request_len)
		die("request");
}

/* Whether the whole answer is there. */
static int complete(struct connection *c)
{
	char *end, *length;

	c->in[c->got] = 0;
	end = strstr(c->in, "\r\n\r\n");
	if (!end)
		return 0;
	length = strcasestr(c->in, "content-length:");
	if (!length || length > end) {
		fprintf(stderr, "an answer without content-length: %.200s\n", c->in);
		exit(1);
	}
	return c->got >= end + 4 - c->in + atoi(length + 15);
}

static int load(const char *host, int port, const char *path, int count, double seconds)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	uint32_t *samples = malloc(MAX_SAMPLES * sizeof(*samples)), n = 0, other = 0;
	struct epoll_event ready[64];
	int poll = epoll_create1(0);
	uint64_t start, end, now;

	if (!samples || inet_pton(AF_INET, host, &to.sin_addr) != 1)
		die("address");
	request_len = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\n\r\n",
			       path);
	for (int i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
			die("connect");
		watch(poll, fd);
		ask(fd);
	}
	start = now_ns();
	end = start + (uint64_t)(seconds * 1e9);
	while ((now = now_ns()) < end && n < MAX_SAMPLES) {
		int m = epoll_wait(poll, ready, 64, 100);

		for (int i = 0; i < m; i++) {
			int fd = ready[i].data.fd;
			struct connection *c = &connections[fd];
			ssize_t got = read(fd, c->in + c->got, sizeof(c->in) - 1 - c->got);

			if (got <= 0)
				die("answer");
			c->got += got;
			if (!complete(c))
				continue;
			other += memcmp(c->in, "HTTP/1.1 200", 12) != 0;
			samples[n++] = (uint32_t)(now_ns() - c->began);
			ask(fd);
		}
	}
	now = now_ns() - start;
	if (!n) {
		fputs("no answers\n", stderr);
		return 1;
	}
	qsort(samples, n, sizeof(*samples), compare);
	printf("{\"n\":%u,\"rate\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"other\":%u}\n", n, n * 1e9 / now,
	       samples[n / 2] / 1e3, samples[(uint64_t)n * 99 / 100] / 1e3, other);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "serve")) {
		if (argc > 3)
			pin(argv[3]);
		return serve(atoi(argv[2]));
	}
	if (argc >= 7 && !strcmp(argv[1], "load")) {
		if (argc > 7)
			pin(argv[7]);
		return load(argv[2], atoi(argv[3]), argv[4], atoi(argv[5]), atof(argv[6]));
	}
	fputs("usage: http serve PORT [CPU] | http load HOST PORT PATH CONNECTIONS SECONDS [CPU]\n", stderr);
	return 2;
}
