// ESRGAN of npm as a program: node esrgan.cjs INPUT OUTPUT [SCALE], a PNG file or a folder of them.
//
// npm install --no-save --no-package-lock --prefix examples \
//     @upscalerjs/esrgan-thick@1.0.0 @tensorflow/tfjs@4.11.0 pngjs@7.0.0

const fs = require("fs");
const path = require("path");
const { PNG } = require("pngjs");
const tf = require("@tensorflow/tfjs");

const PACKAGE = "@upscalerjs/esrgan-thick"; // scales 2, 3, 4 and 8

// The package holds a Keras network as JSON, its weights in pieces, and the layers of its own.
async function loadNetwork(scale) {
  const definition = require(`${PACKAGE}/${scale}x`);
  definition.setup(tf);
  const [root] = require.resolve(PACKAGE).split(path.join("/", "dist", "/"));
  const folder = path.dirname(path.join(root, definition._internals.path));
  const read = (name) => fs.readFileSync(path.join(folder, name));
  const { modelTopology, weightsManifest } = JSON.parse(read("model.json"));
  const weightSpecs = weightsManifest.flatMap((group) => group.weights);
  const bytes = Buffer.concat(weightsManifest.flatMap((group) => group.paths).map(read));
  const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return tf.loadLayersModel({ load: async () => ({ modelTopology, weightSpecs, weightData }) });
}

function enlarge(network, file) {
  const { width, height, data } = PNG.sync.read(fs.readFileSync(file));
  // Bytes of RGBA -> (1, h, w, 3) in [0, 1] -> the same, enlarged -> bytes of RGB
  const output = tf.tidy(() => {
    const rgba = tf.tensor4d(data, [1, height, width, 4]);
    const rgb = rgba.slice([0, 0, 0, 0], [1, height, width, 3]).div(255);
    return network.predict(rgb).clipByValue(0, 1).mul(255).round();
  });
  const size = { width: output.shape[2], height: output.shape[1] };
  const picture = new PNG(size);
  picture.data = Buffer.from(output.dataSync());
  output.dispose();
  return PNG.sync.write(picture, { colorType: 2, inputColorType: 2, inputHasAlpha: false });
}

async function main([input, output, scale = "4"]) {
  const network = await loadNetwork(scale);
  if (fs.statSync(input).isFile()) {
    fs.writeFileSync(output, enlarge(network, input));
    return;
  }
  fs.mkdirSync(output, { recursive: true });
  for (const name of fs.readdirSync(input).filter((name) => name.endsWith(".png"))) {
    fs.writeFileSync(path.join(output, name), enlarge(network, path.join(input, name)));
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
