// Socket.IO as its documentation begins: rooms, WebSocket transport, one process.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
        io.to("bench").emit("event", JSON.parse(body));
        response.end("{}");
    });
});
const io = new Server(http, { transports: ["websocket"], serveClient: false });
io.on("connection", (socket) => {
    socket.on("subscribe", (room, done) => {
        socket.join(room);
        done();
    });
});
http.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${http.address().port}`));
