# Java: the version, a compiler run, threads, files, sockets.
# root: full
cd /tmp
java -version 2>&1 | head -1
cat > T.java <<'X'
import java.io.*; import java.net.*; import java.nio.file.*; import java.util.*; import java.util.concurrent.*; import java.util.stream.*;
public class T { public static void main(String[] a) throws Exception {
  System.out.println(IntStream.range(0, 1000000).parallel().mapToLong(i -> i).sum());
  ExecutorService e = Executors.newFixedThreadPool(8); List<Future<Integer>> f = new ArrayList<>(); for (int i = 0; i < 100; i++) { int k = i; f.add(e.submit(() -> k * k)); } int s = 0; for (Future<Integer> x : f) s += x.get(); e.shutdown(); System.out.println(s);
  Path p = Files.createTempFile("x", "y"); Files.write(p, Collections.nCopies(10000, "line")); System.out.println(Files.lines(p).count());
  ServerSocket ss = new ServerSocket(0, 10, InetAddress.getLoopbackAddress()); Thread t = new Thread(() -> { try (Socket c = ss.accept()) { c.getOutputStream().write("hello\n".getBytes()); } catch (IOException x) { x.printStackTrace(); } }); t.start();
  try (Socket c = new Socket(InetAddress.getLoopbackAddress(), ss.getLocalPort())) { System.out.println(new BufferedReader(new InputStreamReader(c.getInputStream())).readLine()); } t.join();
  Process q = new ProcessBuilder("sh", "-c", "echo sub; exit 5").start(); System.out.println(new String(q.getInputStream().readAllBytes()).trim() + " " + q.waitFor());
  List<byte[]> junk = new ArrayList<>(); for (int i = 0; i < 2000; i++) { junk.add(new byte[100000]); if (junk.size() > 50) junk.clear(); } System.gc(); System.out.println("gc");
  try { int[] z = new int[1]; System.out.println(z[1]); } catch (ArrayIndexOutOfBoundsException x) { System.out.println("bounds"); }
  try { ((Object) null).hashCode(); } catch (NullPointerException x) { System.out.println("null"); }
  try { deep(0); } catch (StackOverflowError x) { System.out.println("overflow"); }
} static int deep(int n) { return deep(n + 1) + 1; } }
X
javac T.java && java -Xmx256m T
java -Xmx256m -XX:+UseSerialGC T | tail -1
java -Xmx256m -Xint -version 2>&1 | wc -l
