#pragma once
// Textual inversion files: A1111's .pt (string_to_param) and .safetensors (emb_params), two encoders' (clip_l, clip_g), and
// diffusers' learned_embeds, a tensor by the name of its token.
#include <tenon/io/atomic.hpp>
#include <tenon/io/checkpoint.hpp>
#include <tenon/peft/token_rows.hpp>

namespace tenon::inline TENON_ABI {

/// The learned vectors of one file.
struct TextualInversion {
  std::string token;                                   ///< what the file calls it, or the file's name
  std::map<std::string, Tensor<float>> vectors;        ///< [n, D] by encoder: "" where the file has one, else clip_l and clip_g
};

/// Reads a textual inversion. Throws FileError on other files and on numbers that are not finite.
inline TextualInversion load_textual_inversion(const std::string& path) {
  const StateDict file = open_checkpoint(path);
  TextualInversion out;
  const auto slash = path.rfind('/');
  out.token = path.substr(slash == std::string::npos ? 0 : slash + 1);
  out.token = out.token.substr(0, out.token.rfind('.'));
  const auto take = [&](const std::string& name, const std::string& encoder) {
    Tensor<float> value = cast<float>(file.raw(name));
    if (value.rank() == 1) value = std::move(value).reshape(Shape{1, value.extent(0)});
    check<FileError>(value.rank() == 2 && value.size() > 0, "load_textual_inversion", path, ": ", name, ": expected vectors [n, D], found shape ", value.shape());
    check<FileError>(std::all_of(value.begin(), value.end(), [](float v) { return std::isfinite(v); }), "load_textual_inversion", path, ": ", name,
                     ": expected finite numbers, found NaN or infinity");
    out.vectors.emplace(encoder, std::move(value));
  };
  constexpr std::string_view params = "string_to_param.";
  for (const auto& name : file.names()) {
    if (name == "clip_l" || name == "clip_g")
      take(name, name);
    else if (name == "emb_params" || name.starts_with(params))
      take(name, "");
    else if (file.size() == 1)
      take(out.token = name, "");
    else
      continue;
    const std::string_view rest = name.starts_with(params) ? std::string_view(name).substr(params.size()) : std::string_view();
    if (!rest.empty() && rest.find("_parameters.") == std::string_view::npos && rest != "*") out.token = rest;
  }
  check<FileError>(!out.vectors.empty(), "load_textual_inversion", path, ": expected string_to_param, emb_params, clip_l and clip_g, or one tensor; found ",
                   file.size(), " tensors");
  return out;
}

/// Attaches vectors to the Embedding that `target` names, frozen: their ids are token_ids(model, options.name), which a
/// tokenizer gives for the token. Throws NameError, and ShapeError when the widths differ.
template <class M>
AttachReport attach(M& model, const Tensor<float>& vectors, const std::string& target, const AttachOptions& options) {
  using T = scalar_of<M>;
  check<ShapeError>(vectors.rank() == 2 && vectors.size() > 0, "attach", "expected vectors [n, D], got ", vectors.shape());
  auto placements = detail::patches_for(model, {target}, [](const auto&) { return false; }, [&](const SiteRef<T>& site) -> NewPatch<T> {
    if (!std::holds_alternative<Embedding<T>*>(site.layer)) return {};
    check<ShapeError>(site.weight->shape()[1] == vectors.extent(1), "attach", "expected vectors of width ", site.weight->shape()[1], " for ", site.path,
                      ", got ", vectors.shape());
    auto patch = std::make_unique<TokenRows<T>>(vectors.extent(0), vectors.extent(1), next_token_id(site));
    patch->rows->set(cast<T>(vectors));
    return {std::move(patch), nullptr};
  });
  return detail::place(std::move(placements), options);
}

namespace detail {

/// A zip archive whose members are stored as they are.
class ZipWriter {
 public:
  void add(const std::string& name, std::string_view bytes) {
    Member member{name, crc(bytes), static_cast<std::uint32_t>(bytes.size()), static_cast<std::uint32_t>(out_.size())};
    check(bytes.size() < 0xffffffffu && out_.size() < 0xffffffffu, "zip", "expected less than 4 GB");
    out_ += "PK\x03\x04";
    header(member);
    out_ += name;
    out_ += bytes;
    members_.push_back(std::move(member));
  }
  std::string finish() {
    const auto begin = static_cast<std::uint32_t>(out_.size());
    for (const auto& member : members_) {
      out_ += "PK\x01\x02";
      number(20, 2);
      header(member);
      number(0, 2), number(0, 2), number(0, 2), number(0, 4), number(member.begin, 4);
      out_ += member.name;
    }
    const auto size = static_cast<std::uint32_t>(out_.size()) - begin;
    out_ += "PK\x05\x06";
    number(0, 4);
    number(static_cast<std::uint32_t>(members_.size()), 2), number(static_cast<std::uint32_t>(members_.size()), 2);
    number(size, 4), number(begin, 4), number(0, 2);
    return std::move(out_);
  }

 private:
  struct Member {
    std::string name;
    std::uint32_t crc, size, begin;
  };
  void number(std::uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xffu);
  }
  void header(const Member& member) {  // version, flags, stored, time, date (1980-01-01)
    number(20, 2), number(0, 2), number(0, 2), number(0, 2), number(0x21, 2);
    number(member.crc, 4), number(member.size, 4), number(member.size, 4);
    number(static_cast<std::uint32_t>(member.name.size()), 2), number(0, 2);
  }
  static std::uint32_t crc(std::string_view bytes) {
    std::uint32_t out = 0xffffffffu;
    for (const char c : bytes) {
      out ^= static_cast<unsigned char>(c);
      for (int bit = 0; bit < 8; ++bit) out = out >> 1 ^ (out & 1u ? 0xedb88320u : 0u);
    }
    return ~out;
  }
  std::string out_;
  std::vector<Member> members_;
};

/// A1111's dictionary with one float32 tensor, as torch.save pickles it (protocol 2); the elements lie beside it as data/0.
inline std::string textual_inversion_pickle(const std::string& token, const Shape& shape) {
  std::string out = "\x80\x02";
  const auto number = [&](Index value) {
    out += 'J';
    for (int i = 0; i < 4; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
  };
  const auto text = [&](std::string_view value) {
    out += 'X';
    for (int i = 0; i < 4; ++i) out += static_cast<char>(value.size() >> (8 * i) & 0xffu);
    out += value;
  };
  out += "}(";
  text("string_to_token"), out += '}', text("*"), number(265), out += 's';
  text("string_to_param"), out += '}', text("*");
  out += "ctorch._utils\n_rebuild_tensor_v2\n((";
  text("storage"), out += "ctorch\nFloatStorage\n", text("0"), text("cpu"), number(shape.size()), out += "tQ";
  number(0);
  out += '(', number(shape[0]), number(shape[1]), out += "t(", number(shape[1]), number(1), out += "t\x89";
  out += "ccollections\nOrderedDict\n)RtRs";
  text("name"), text(token), text("step"), number(0), text("sd_checkpoint"), out += 'N', text("sd_checkpoint_name"), out += 'N';
  return out + "u.";
}

}  // namespace detail

/// Writes vectors [n, D] as A1111 reads them: .safetensors (emb_params), or .pt. Throws ShapeError, NameError for another
/// ending, FileError when it cannot be written.
inline void save_textual_inversion(const std::string& path, const Tensor<float>& vectors, const std::string& token) {
  check<ShapeError>(vectors.rank() == 2 && vectors.size() > 0, "save_textual_inversion", "expected vectors [n, D], got ", vectors.shape());
  if (path.ends_with(".safetensors")) return save_safetensors(path, {{"emb_params", raw_copy(vectors)}}, {{"name", token}});
  check<NameError>(path.ends_with(".pt"), "save_textual_inversion", path, ": expected a name that ends with .pt or .safetensors");
  detail::ZipWriter zip;
  zip.add("archive/data.pkl", detail::textual_inversion_pickle(token, vectors.shape()));
  zip.add("archive/byteorder", "little");
  zip.add("archive/data/0", {reinterpret_cast<const char*>(vectors.data()), static_cast<std::size_t>(vectors.size()) * sizeof(float)});
  zip.add("archive/version", "3\n");
  const std::string bytes = zip.finish();
  atomic_write(path, [&](FileSink& sink) { sink.write(bytes); });
}

}  // namespace tenon::inline TENON_ABI
