# nginx with loopback clients: files, keep-alive, proxying, reload, log rotation.
# root: full
mkdir -p /tmp/n/www /tmp/n/t; cd /tmp/n; chmod 755 /tmp/n
head -c 3000000 /dev/zero | tr '\0' z > www/big; echo hello > www/index.html
cat > conf <<'X'
worker_processes 2; pid /tmp/n/pid; error_log /tmp/n/err; daemon on;
events { worker_connections 256; }
http { access_log /tmp/n/access; client_body_temp_path /tmp/n/t/b; proxy_temp_path /tmp/n/t/p; fastcgi_temp_path /tmp/n/t/f; uwsgi_temp_path /tmp/n/t/u; scgi_temp_path /tmp/n/t/s;
 sendfile on; tcp_nopush on; gzip on;
 server { listen 127.0.0.1:8088; root /tmp/n/www; location /up/ { proxy_pass http://127.0.0.1:8089/; } }
 server { listen 127.0.0.1:8089; location / { return 200 "backend $request_uri\n"; } }
 server { listen unix:/tmp/n/sock; location / { return 201 "unix\n"; } } }
X
nginx -t -c /tmp/n/conf 2>&1 | grep -c successful
nginx -c /tmp/n/conf; echo "start $?"
curl -s http://127.0.0.1:8088/
curl -s http://127.0.0.1:8088/big | md5sum
curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8088/none
curl -s http://127.0.0.1:8088/up/x
curl -s --unix-socket sock -w '%{http_code}\n' http://x/
curl -s -r 100-199 http://127.0.0.1:8088/big | wc -c
curl -s -d @www/big -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8088/up/post
for i in $(seq 200); do echo "url=http://127.0.0.1:8088/?$i"; echo output=/dev/null; done | curl -s -Z --parallel-max 20 -K - && echo parallel
wc -l < access
mv access access.1; kill -USR1 $(cat pid); for i in $(seq 50); do [ -e access ] && break; sleep 0.1; done; ls access
kill -HUP $(cat pid); sleep 0.5; curl -s http://127.0.0.1:8088/
nginx -c /tmp/n/conf -s quit; for i in $(seq 100); do [ -e pid ] || break; sleep 0.1; done; ls pid 2>/dev/null || echo stopped
grep -c -E "emerg|alert" err || true
